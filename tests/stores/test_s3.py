from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from botocore import exceptions as aws

from defectbench.errors import (
    ConfigurationError,
    ConflictError,
    MissingInputError,
    NoRightsError,
    StoreAwayError,
    TryAgainError,
)
from defectbench.stores.base import ABSENT, Store
from defectbench.stores.choose import open_store
from defectbench.stores.s3 import S3Store
from parts import BUCKET, S3Server, find_gateway, free_port

pytestmark = pytest.mark.s3


def every_call(store: Store, path: Path) -> list[Callable[[], object]]:
    """Return one call of each method."""
    return [
        lambda: store.get("k"),
        lambda: store.put("k", b"1"),
        lambda: store.put("k", b"1", expected=ABSENT),
        lambda: list(store.keys()),
        lambda: store.delete("k"),
        lambda: store.upload("k", Path(__file__)),
        lambda: store.download("k", path / "copy"),
    ]


def test_unreachable_server_try_again(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://me:hush@127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for call in every_call(open_store(s3_url), tmp_path):
        with pytest.raises(TryAgainError, match=r"out of reach \(\w+\); see that it runs") as caught:
            call()
        assert "hush" not in str(caught.value)
        assert not isinstance(caught.value, ConflictError)
    assert list(tmp_path.iterdir()) == []


def test_server_killed_midway_and_back(own_s3_server: S3Server, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}/x")
    version = store.put("k", b"1")
    own_s3_server.kill()
    with pytest.raises(TryAgainError, match="out of reach"):
        store.put("k", b"2", expected=version)
    own_s3_server.start()
    assert store.put("k", b"2", expected=version)


def test_wrong_secret_no_rights(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    for call in every_call(open_store(s3_url), tmp_path):
        with pytest.raises(NoRightsError, match="refuses these credentials") as caught:
            call()
        assert "wrong-secret" not in str(caught.value)


def test_unknown_key_id_no_rights(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody-we-know")
    for call in every_call(open_store(s3_url), tmp_path):
        with pytest.raises(NoRightsError) as caught:
            call()
        assert "nobody-we-know" not in str(caught.value)


def test_no_credentials_says_what_to_set(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for call in every_call(open_store(s3_url), tmp_path):
        with pytest.raises(NoRightsError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            call()


def test_no_bucket_is_named(s3_url: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/x")
    for call in every_call(store, tmp_path):
        with pytest.raises(MissingInputError, match="no bucket 'no-such-bucket'"):
            call()
    with pytest.raises(MissingInputError, match="no bucket"):
        store.put("k", b"1", expected="an-etag")


def test_find_without_bucket_is_no_empty_answer(s3_url: str) -> None:
    with pytest.raises(MissingInputError, match="no bucket"):
        open_store("s3://no-such-bucket/x").find("k")


def test_bad_endpoint_is_a_setting(s3_url: str) -> None:
    with pytest.raises(ConfigurationError, match="not-a-url"):
        S3Store("bench", endpoint="not-a-url")


def test_unknown_profile_is_a_setting(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(ConfigurationError, match="no-such-profile"):
        open_store(s3_url)


def test_full_disk_of_the_server(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = S3Server(find_gateway(), small_disk)
    server.start()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        store = open_store(f"s3://{BUCKET}/x")
        store.put("first", os.urandom(500_000))
        with pytest.raises(TryAgainError, match="try again later"):
            store.put("second", os.urandom(700_000))
        assert list(store.keys()) == ["first"]
    finally:
        server.kill()


class Forgetful:
    """A proxy that passes everything on, but swallows the answer to the first PUT and hangs up."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.swallowed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.before_hanging_up: Callable[[], object] = lambda: None
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with (
            closing(client),
            socket.create_connection(("127.0.0.1", self.target)) as server,
            suppress(OSError),
        ):
            is_put = False
            client.settimeout(0.05)
            server.settimeout(0.05)
            while True:
                with suppress(TimeoutError):
                    request = client.recv(1 << 16)
                    if not request:
                        return
                    is_put = is_put or request.startswith(b"PUT")
                    server.sendall(request)
                with suppress(TimeoutError):
                    answer = server.recv(1 << 16)
                    if not answer:
                        return
                    if is_put and not self.swallowed and answer.startswith(b"HTTP/1.1 200"):
                        self.swallowed += 1
                        self.before_hanging_up()
                        return
                    client.sendall(answer)


@pytest.fixture
def forgetful(s3_server: S3Server, s3_url: str) -> Iterator[Forgetful]:
    with closing(Forgetful(s3_server.port)) as proxy:
        yield proxy


def through(proxy: Forgetful, url: str) -> Store:
    bucket, prefix = url.removeprefix("s3://").split("/", 1)
    return S3Store(bucket, prefix, endpoint=f"http://127.0.0.1:{proxy.port}")


@pytest.mark.parametrize("absent", [True, False])
def test_put_whose_answer_was_lost_has_won(forgetful: Forgetful, s3_url: str, absent: bool) -> None:
    direct = open_store(s3_url)
    expected = ABSENT if absent else direct.put("lease", b"before")
    version = through(forgetful, s3_url).put("lease", b"mine", expected=expected)
    assert forgetful.swallowed == 1
    assert (direct.get("lease").data, direct.get("lease").version) == (b"mine", version)


def test_put_whose_answer_was_lost_and_then_overwritten_has_lost(forgetful: Forgetful, s3_url: str) -> None:
    direct = open_store(s3_url)

    def overwrite() -> None:
        direct.put("lease", b"theirs", expected=direct.get("lease").version)

    forgetful.before_hanging_up = overwrite
    with pytest.raises(ConflictError):
        through(forgetful, s3_url).put("lease", b"mine", expected=ABSENT)
    assert direct.get("lease").data == b"theirs"


def test_put_of_equal_bytes_by_two_has_one_winner(s3_url: str) -> None:
    store = open_store(s3_url)
    store.put("k", b"same", expected=ABSENT)
    with pytest.raises(ConflictError):
        open_store(s3_url).put("k", b"same", expected=ABSENT)


def test_an_untrusted_certificate_names_the_variable_and_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broken handshake may pass; a certificate that nobody signed does not."""
    store = S3Store(BUCKET, "x", "https://localhost:1")

    def fails(text: str) -> Callable[..., object]:
        def call(**words: object) -> object:
            raise aws.SSLError(endpoint_url="https://localhost:1", error=OSError(text))

        return call

    monkeypatch.setattr(store._client, "get_object", fails("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"))
    with pytest.raises(ConfigurationError, match=r"AWS_CA_BUNDLE=/path/to/ca\.pem"):
        store.get("k")
    monkeypatch.setattr(store._client, "get_object", fails("EOF occurred in violation of protocol"))
    with pytest.raises(StoreAwayError):
        store.get("k")
