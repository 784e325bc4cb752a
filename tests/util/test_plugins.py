"""Stores, trackers and protocols of other packages, by their entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.protocols.choose import BUILTIN
from packages import install, run

STORE = """\
from pathlib import Path
from defectbench.stores.directory import DirectoryStore

class Elsewhere(DirectoryStore):
    def __init__(self, url):
        super().__init__(Path("/") / url.partition("://")[2])
        self.url, self.local_path = url, None
"""
TRACKER = """\
from defectbench.trackers.base import Tracker

def opened(uri):
    print("opened", uri)
    raise SystemExit(0)
"""
PROTOCOL = """\
from typing import ClassVar
from defectbench.protocols.base import Description, Protocol, Splits
from defectbench.protocols.folds import crossfit

class Mine(Protocol):
    name: ClassVar[str] = "mine"
    descriptions: ClassVar = (Description("mine", "What is mine?"),)

    def splits(self, manifest, split_seed, folds):
        return Splits(tuple(crossfit(manifest, split_seed, folds, self.name)))
"""
NAMES = """\
from defectbench.protocols.choose import CLASHES, PROTOCOLS, REMARKS
print(list(PROTOCOLS), CLASHES, REMARKS)
"""
OURS = repr(list(BUILTIN))[:-1]


def opened(folder: Path, url: str) -> str:
    """What opening a store says: the store's class, or the error with its code."""
    code = (
        "from defectbench.stores.choose import open_store\nfrom defectbench.errors import DefectbenchError\n"
        f"try: print(type(open_store({url!r})).__name__)\n"
        "except DefectbenchError as error: print(int(error.code), error)"
    )
    done = run(folder, python=code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_packages_store_is_opened_by_its_scheme(tmp_path: Path) -> None:
    install(tmp_path / "lib", "elsewhere", {"stores/else": "elsewhere:Elsewhere"}, STORE)
    assert opened(tmp_path / "lib", f"else://{tmp_path}/bench") == "Elsewhere"
    assert opened(tmp_path / "lib", f"ELSE://{tmp_path}/bench") == "Elsewhere"
    assert opened(tmp_path / "lib", str(tmp_path)) == "DirectoryStore"
    said = opened(tmp_path / "lib", "els://x")
    assert said.startswith("64 no store of kind els://; did you mean 'else'? allowed: else, file, s3")
    assert said.endswith(", or a path")
    done = run(tmp_path / "lib", "data", "list", "--store", f"else://{tmp_path}/bench")
    assert done.returncode == 0


def test_a_store_that_is_no_directory_here_has_no_tracker(tmp_path: Path) -> None:
    install(tmp_path / "lib", "elsewhere", {"stores/else": "elsewhere:Elsewhere"}, STORE)
    code = (
        "from defectbench.stores.choose import open_store\n"
        "from defectbench.trackers.choose import tracking_uri\n"
        f"print(tracking_uri(open_store('else://{tmp_path}/bench'), None))"
    )
    assert run(tmp_path / "lib", python=code).stdout == "None\n"


@pytest.mark.parametrize(
    ("value", "source", "told"),
    [
        ("elsewhere:Elsewhere", "import no_such_library", "No module named 'no_such_library'"),
        ("elsewhere:Missing", STORE, "has no attribute 'Missing'"),
        ("elsewhere:URL", "URL = 'else://'", "expected a class or a function of a URL, got 'else://'"),
    ],
)
def test_a_broken_store_is_named_when_it_is_asked_for(
    tmp_path: Path, value: str, source: str, told: str
) -> None:
    install(tmp_path / "lib", "elsewhere", {"stores/else": value}, source)
    said = opened(tmp_path / "lib", "else://x")
    assert said.startswith("78 the package elsewhere 1.0 is left out: its entry point 'else'")
    assert told in said
    assert opened(tmp_path / "lib", str(tmp_path)) == "DirectoryStore"


@pytest.mark.parametrize(
    ("scheme", "owners"), [("else", "one 1.0 and by two 1.0"), ("s3", "defectbench itself and by one 1.0")]
)
def test_a_scheme_that_two_register_is_refused_naming_both(tmp_path: Path, scheme: str, owners: str) -> None:
    for package in ("one", "two") if scheme == "else" else ("one",):
        install(tmp_path / "lib", package, {f"stores/{scheme}": f"{package}:Elsewhere"}, STORE)
    assert opened(tmp_path / "lib", f"{scheme}://bucket").startswith(
        f"78 {scheme!r} is registered by {owners} (defectbench.stores)"
    )


def test_a_packages_tracker_is_opened_by_its_scheme(tmp_path: Path) -> None:
    install(tmp_path / "lib", "watcher", {"trackers/watch": "watcher:opened"}, TRACKER)
    code = "from defectbench.trackers.choose import open_tracker; open_tracker({!r})"
    assert run(tmp_path / "lib", python=code.format("watch://host/x")).stdout == "opened watch://host/x\n"
    said = run(tmp_path / "lib", python=code.format("wach://host/x")).stderr
    assert "no tracker of kind wach://; did you mean 'watch'?" in said


@pytest.mark.parametrize("scheme", ["http", "sqlite"])
def test_a_trackers_scheme_of_ours_cannot_be_taken(tmp_path: Path, scheme: str) -> None:
    install(tmp_path / "lib", "watcher", {f"trackers/{scheme}": "watcher:opened"}, TRACKER)
    code = f"from defectbench.trackers.choose import open_tracker; open_tracker('{scheme}://host/x.db')"
    said = run(tmp_path / "lib", python=code).stderr
    assert f"{scheme!r} is registered by defectbench itself and by watcher 1.0" in said


def test_a_packages_protocol_is_read_after_ours(tmp_path: Path) -> None:
    install(tmp_path / "lib", "mine", {"protocols/mine": "mine:Mine"}, PROTOCOL)
    assert run(tmp_path / "lib", python=NAMES).stdout.startswith(f"{OURS}, 'mine'] {{}}")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("Mine = 3", "expected a subclass of defectbench.protocols.base.Protocol, got 3"),
        (PROTOCOL.replace('Description("mine"', 'Description("other"'), "the first description is of"),
        (PROTOCOL.replace('"mine"', '"My own"'), "small letters, digits and _ are allowed"),
        (PROTOCOL.replace('mine?"', 'mine?", primary=True'), "mine calls itself primary"),
    ],
)
def test_a_broken_protocol_is_named_and_takes_no_other_down(tmp_path: Path, source: str, told: str) -> None:
    install(tmp_path / "lib", "mine", {"protocols/mine": "mine:Mine"}, source)
    said = run(tmp_path / "lib", python=NAMES).stdout
    assert said.startswith(f"{OURS}] {{}}")
    assert "the package mine 1.0 is left out: its entry point 'mine'" in said
    assert told in said


@pytest.mark.parametrize("name", ["detection", "holdout", "unseen"])
def test_a_protocols_name_of_ours_cannot_be_taken(tmp_path: Path, name: str) -> None:
    install(tmp_path / "lib", "mine", {"protocols/x": "mine:Mine"}, PROTOCOL.replace('"mine"', f'"{name}"'))
    said = run(tmp_path / "lib", python=NAMES).stdout
    assert f"{name!r} is registered by defectbench itself and by mine 1.0" in said.replace('"', "'").replace(
        "\\'", "'"
    )
    file = tmp_path / "x.yaml"
    file.write_text(
        f"name: x\ndata: {{dataset: d}}\nmodels: [padim]\nweights: none\nprotocols:\n  {name}: {{}}\n"
    )
    refused = run(tmp_path / "lib", "plan", str(file), "--store", str(tmp_path / "s"))
    assert refused.returncode == 64
    assert f"x.yaml:6: protocols.{name}: protocol {name!r} is registered by" in refused.stderr


def test_testing_without_pytest_says_so(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None\nimport defectbench.testing"
    said = run(tmp_path, python=code).stderr
    assert "defectbench.testing needs pytest, which is not installed: pip install pytest" in said
