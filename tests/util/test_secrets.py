"""No form of a URI shows its password; no literal secret enters the chart's values."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from defectbench.__main__ import run
from defectbench.errors import ConfigurationError, UsageError
from defectbench.runners.chart.values import read_values
from defectbench.trackers.choose import open_tracker
from defectbench.util.secrets import has_login, redact, redact_uri

CANARY = "c4n4ry"
FORMS = [
    f"http://u:{CANARY}@h:5000",
    f"http://u:{CANARY}@h:5000/x?y=1#z",
    f"HTTPS://u:{CANARY}@[::1]:5000/",
    f"http://u:a@b{CANARY}@h",
    f"http://u:a/b{CANARY}@h",
    f"http://u:a?b{CANARY}@h",
    f"http://u:a#b{CANARY}@h",
    f"http://{CANARY}@h",
    f"http://:{CANARY}@h",
    f"http:u:{CANARY}@h",
    f"http:/u:{CANARY}@h",
    f"//u:{CANARY}@h",
    f"u:{CANARY}@h/x",
    f"u:{CANARY}@h",
    f"http://u%3A{CANARY}%40h/x",
    f"http://h/x?X-Amz-Signature={CANARY}",
    f"http://h/x?sv=1&sig={CANARY}",
    f"http://h/x#access_token={CANARY}",
    f"postgresql+psycopg2://u:{CANARY}@h/db",
    f"mysql://u:{CANARY}@h:3306/db?charset=utf8",
    f"sqlite:///u:{CANARY}@h/x",
    f"s3://u:{CANARY}@bucket/x",
    f"ftp://u:{CANARY}@h/x",
]


@pytest.mark.parametrize("uri", FORMS)
def test_no_form_of_a_uri_shows_its_secret(uri: str) -> None:
    assert CANARY not in redact_uri(uri)
    if "%" not in uri:
        assert CANARY not in redact(f"cannot reach {uri}: refused")


@pytest.mark.parametrize(
    "uri", ["sqlite:////data/mlflow.db", "http://host:5000/x", "./mlflow.db", "s3://bucket/a@b.c", "/a/b:c"]
)
def test_a_uri_without_a_secret_is_shown_whole_or_shorter(uri: str) -> None:
    assert redact_uri(uri) in (uri, "s3://***@b.c")


@pytest.mark.parametrize("uri", FORMS)
def test_the_commands_print_no_secret(
    uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with suppress(UsageError, ConfigurationError):
        shown = open_tracker(uri).place
        assert CANARY not in shown
    sweep = tmp_path / "s.yaml"
    sweep.write_text("name: s\n")
    for arguments in (["track", "s", "--tracking-uri", uri], ["status", "s", "--store", uri]):
        run([*arguments] if "--store" in arguments else [*arguments, "--store", str(tmp_path / "store")])
    out = capfd.readouterr()
    if "://" in uri:  # else --store names a path, which is shown
        assert CANARY not in out.out + out.err


SECRETS = [
    f"extraEnv=[{{name: DB_PASSWORD, value: {CANARY}}}]",
    f"extraEnv=[{{name: AWS_SECRET_ACCESS_KEY, value: {CANARY}}}]",
    f"extraEnv=[{{name: hfToken, value: {CANARY}}}]",
    f"extraEnv=[{{name: HTTPS_PROXY, value: 'http://u:{CANARY}@proxy:3128'}}]",
    f"extraEnv=[{{name: http_proxy, value: 'u:{CANARY}@proxy:3128'}}]",
    f"extraEnv=[{{name: X, value: 'https://h/x?sig={CANARY}'}}]",
    f"extraEnv=[{{name: X, value: 'AKIA{'A' * 16}'}}]",
    f"extraArgs=[--tracking-uri, 'http://u:{CANARY}@h']",
    f"extraArgs=['--tracking-uri=http://u:{CANARY}@h']",
    f"extraArgs=[--api-key, {CANARY}]",
    f"extraArgs=['--token={CANARY}']",
    f"tracker.uri='http://u:{CANARY}@mlflow:5000'",
    f"store.endpoint='http://u:{CANARY}@s3:9000'",
    f"proxy.url='http://u:{CANARY}@p:1'",
]


@pytest.mark.parametrize("override", SECRETS)
def test_a_literal_secret_in_the_values_is_refused_unshown(override: str) -> None:
    with pytest.raises(ConfigurationError, match=r"looks like a secret.*Secret") as caught:
        read_values([], [override])
    assert CANARY not in str(caught.value)


def test_what_is_no_secret_passes() -> None:
    given = read_values(
        [],
        [
            "extraEnv=[{name: TOKENIZERS_PARALLELISM, value: 'false'}, {name: AWS_CA_BUNDLE, value: /ca}, "
            "{name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /run/token}, {name: PROXY, value: 'http://p:1'}, "
            "{name: PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}]",
            "extraArgs=[--device, cuda]",
            "store.credentialsSecret=aws",
            "tracker.uri=http://mlflow:5000",
        ],
        "registry:5000/a/b:1@sha256:" + "0" * 64,
    )
    assert given["extraArgs"] == ["--device", "cuda"]
    assert not has_login("see http://host/?page=2")
