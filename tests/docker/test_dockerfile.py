"""The Dockerfile as text: what a reviewer would look for, and what must never be in it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from parts import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
SCRIPTS = sorted((ROOT / "docker").glob("*.sh"))


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, lines joined, comments gone."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def arguments(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one stage."""
    found: list[tuple[str, str]] = []
    current = ""
    for word, rest in instructions():
        current = rest.split(" AS ")[1] if word == "FROM" else current
        found += [(word, rest)] if current == name else []
    return found


def test_entrypoint_is_exec_form_by_absolute_path() -> None:
    # A shell in between would swallow SIGTERM, and a PATH might find another.
    assert [json.loads(rest) for rest in arguments("ENTRYPOINT")] == [["/opt/defectbench/bin/defectbench"]]


def test_user_is_a_number_and_not_root() -> None:
    (user,) = arguments("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_both_targets_stand_on_the_runtime() -> None:
    assert {"runtime AS slim", "runtime AS full"} <= set(arguments("FROM"))


def test_base_is_an_argument_everywhere() -> None:
    outside = [rest for rest in arguments("FROM") if rest.split(" AS ")[0] not in ("build", "runtime")]
    assert outside
    assert all(rest.startswith("${BASE} AS ") for rest in outside)


def test_environment_is_as_locked() -> None:
    syncs = " ".join(arguments("RUN")) + (ROOT / "docker" / "needs.sh").read_text()
    commands = re.findall(r"uv sync [^\n]*", syncs)
    assert len(commands) == 2
    assert all("--locked" in command and "--no-dev" in command for command in commands)


def test_modules_are_compiled() -> None:
    assert "UV_COMPILE_BYTECODE=1" in " ".join(arguments("ENV"))


def test_slim_has_no_model_library() -> None:
    (sync,) = (rest for word, rest in stage("slim-needs") if word == "RUN")
    assert "train" not in sync
    assert "--extra s3" in sync
    assert "--extra mlflow" in sync


def test_changed_code_changes_no_large_layer() -> None:
    for target in ("slim", "full"):
        copies = [rest for word, rest in stage(target) if word == "COPY"]
        assert copies[-1] == "--from=project /layer /"
        assert not [
            rest for word, rest in stage(f"{target}-needs") if word == "COPY" and "src" in rest.split()
        ]


@pytest.mark.parametrize("path", [DOCKERFILE, *SCRIPTS], ids=lambda path: path.name)
def test_nothing_secret_is_baked_in(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"(?i)(token|password|passwd|secret_key|access_key)\s*=", text)
    assert not re.search(r"https?://", text), "an address belongs to who builds"
    assert not re.search(r"--(index-url|extra-index-url|default-index|trusted-host)", text)


def test_network_secrets_are_mounts() -> None:
    named = [
        word for word, rest in instructions() if word in ("ARG", "ENV") and re.search(r"CERT|INDEX", rest)
    ]
    assert not named
    assert all("--mount=type=secret" in rest for rest in arguments("RUN") if "networked" in rest)


def test_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    wanted = {source for rest in arguments("COPY") if "--from=" not in rest for source in rest.split()[:-1]}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == wanted


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_portable_shell(path: Path) -> None:
    assert path.read_text().startswith("#!/bin/sh\n")
    done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_push_without_a_registry_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "docker" / "push.sh"), "defectbench:1"], capture_output=True, text=True
    )
    assert done.returncode == 64
    assert "REGISTRY=" in done.stderr


def test_build_without_an_engine_says_what_to_do(tmp_path: Path) -> None:
    # A PATH with the shell's own needs alone: no engine in it.
    (tmp_path / "sh").symlink_to("/bin/sh")
    engine = ROOT / "docker" / "engine.sh"
    done = subprocess.run(
        ["/bin/sh", str(engine)], capture_output=True, text=True, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 69
    assert "install one of them" in done.stderr
