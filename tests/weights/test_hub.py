"""Published weights fetched from a server of this test's, into a store, and nothing asked but that."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from defectbench import catalog
from defectbench.__main__ import run
from defectbench.catalog import Weights
from defectbench.errors import MissingInputError, MissingWeightsError, TryAgainError, UsageError
from defectbench.models.checks import weights_check
from defectbench.stores.directory import DirectoryStore
from defectbench.weights import hub
from defectbench.weights import store as weights

HEADER = b'{"a": {"dtype": "U8", "shape": [69924], "data_offsets": [0, 69924]}}'
BODY = len(HEADER).to_bytes(8, "little") + HEADER + (b"weights" * 10_000)[:69_924]
"""A safetensors file, which no network has."""
SHA = hashlib.sha256(BODY).hexdigest()
NET = "resnet18.tv_in1k"


@dataclass
class Hub:
    """A server like the hub: it tells a large file's hash, then sends elsewhere for it."""

    url: str
    told: str = SHA
    short: int = 0
    body: bytes = BODY
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if self.path.endswith("/gone"):
                self.send_error(404)
            elif self.path.endswith("/broken"):
                self.send_error(503)
            elif self.path.startswith("/timm/"):
                self.send_response(302)
                self.send_header("Location", "/blob")
                self.send_header("X-Linked-ETag", f'"{found.told}"')
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(found.body) + found.short))
                self.end_headers()
                self.wfile.write(found.body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    place = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Hub(f"http://127.0.0.1:{place.server_port}")
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    thread = threading.Thread(target=place.serve_forever, daemon=True)
    thread.start()
    yield found
    place.shutdown()
    place.server_close()
    thread.join()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def test_timm_s_weights_come_from_the_hub_with_their_hash_checked(server: Hub, tmp_path: Path) -> None:
    assert hub.download(weights.described(NET), tmp_path / "file") == SHA
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.asked == [f"/timm/{NET}/resolve/main/model.safetensors", "/blob"]
    server.told = "0" * 64
    with pytest.raises(MissingWeightsError, match=f"tells of 000000000000 and sends {SHA[:12]}"):
        hub.download(weights.described(NET), tmp_path / "file")


def test_authors_weights_come_from_their_own_address(server: Hub, tmp_path: Path) -> None:
    fixres = catalog.find("fixefficientnet-b3").weights[0]
    assert hub.address(fixres).endswith("/FixEfficientNet/fixEfficientNet_b3_ns.pth")
    here = replace(fixres, url=f"{server.url}/b3.pth")
    assert hub.download(here, tmp_path / "file") == SHA
    with pytest.raises(MissingWeightsError, match=f"SHA-256 {SHA[:12]}, the .* begins deadbeef"):
        hub.download(replace(here, digest="deadbeef"), tmp_path / "file")


@pytest.mark.parametrize(
    ("path", "short", "error", "words"),
    [
        ("/gone", 0, MissingWeightsError, "answers 404"),
        ("/broken", 0, TryAgainError, "answers 503"),
        ("/file", 9, TryAgainError, "broke off after 70000 of 70009|out of reach"),
    ],
)
def test_download_that_fails_says_whose_fault_it_is(
    path: str, short: int, error: type[Exception], words: str, server: Hub, tmp_path: Path
) -> None:
    server.short = short
    with pytest.raises(error, match=words):
        hub.download(Weights("a", "b", "c", url=server.url + path), tmp_path / "file")


def test_download_without_a_server_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(TryAgainError, match="out of reach"):
        hub.download(Weights("a", "b", "c", url="http://127.0.0.1:9/x"), tmp_path / "file")


def test_weights_without_an_address_say_how_to_bring_them() -> None:
    with pytest.raises(MissingWeightsError, match="weights push textures PATH"):
        hub.address(Weights("textures", "the DTD authors", "research only", kind="pictures"))


SWEEP = """\
name: mirrored
data: {dataset: parts}
models: [padim, wide-resnet50, {name: resnet50, weights: none}, {name: patchcore, backbone: NET}]
weights: pretrained
protocols: {detection: {folds: 3}}
"""


def test_push_mirrors_what_a_sweep_needs_and_pull_brings_it(
    server: Hub, store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(SWEEP.replace("NET", NET))
    where = ["--store", str(tmp_path / "store")]
    assert run(["weights", "push", "--sweep", str(sweep), *where]) == 0
    assert set(store.keys("weights/")) == {
        f"weights/{name}/{SHA}" for name in (NET, "wide_resnet50_2.tv_in1k")
    }
    assert "licence: BSD-3-Clause" in capsys.readouterr().err
    asked = len(server.asked)
    assert run(["weights", "push", "--sweep", str(sweep), "--model", "padim", *where]) == 0
    assert len(server.asked) == asked, "what is in the store was fetched again"
    assert run(["weights", "pull", "--sweep", str(sweep), "--out", str(tmp_path / "here"), *where]) == 0
    assert (tmp_path / "here" / "weights" / SHA).read_bytes() == BODY
    assert len(server.asked) == asked, "pull asked the hub"
    assert run(["weights", "pull", "noisystudent-b4", *where]) == 64
    assert run(["weights", "pull", "--model", "noisystudent-b4", *where]) == 69
    assert "weights push --sweep SWEEP" in capsys.readouterr().err


def test_push_mirrors_what_a_weights_file_takes_no_place_of(
    server: Hub, store: DirectoryStore, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    sweep = tmp_path / "sweep.yaml"
    model = f"{{name: patchcore-large, weights: {tmp_path / 'mine'}}}"
    sweep.write_text(SWEEP.replace("padim, wide-resnet50", model).replace("NET", NET))
    assert run(["weights", "push", "--sweep", str(sweep), "--store", str(tmp_path / "store")]) == 0
    others = [one.name for one in catalog.find("patchcore-large").weights[1:]]
    assert set(store.keys("weights/")) == {f"weights/{name}/{SHA}" for name in (*others, NET)}


@pytest.mark.parametrize(("second", "code"), [("/gone", 69), ("/broken", 75)])
def test_push_says_at_the_end_all_that_cannot_be_had(
    second: str,
    code: int,
    server: Hub,
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made_up = [
        Weights(f"made_up.{name}", "this test", "MIT", url=server.url + path)
        for name, path in (("first", "/broken"), ("second", second), ("third", "/file"))
    ]
    entry = replace(catalog.find("padim"), weights=tuple(made_up))
    monkeypatch.setattr(weights, "entries", lambda: (entry,))
    monkeypatch.setattr(catalog, "find", lambda name: entry)
    assert run(["weights", "push", "--model", "padim", "--store", store.url]) == code
    said = capsys.readouterr().err
    assert "/broken answers 503" in said
    assert f"made_up.second: {server.url}{second} answers" in said
    assert list(store.keys("weights/")) == [f"weights/made_up.third/{SHA}"]


def test_page_of_a_proxy_is_no_weights(server: Hub, tmp_path: Path) -> None:
    server.body = b"<!DOCTYPE html><title>Sign in</title>"
    made_up = Weights("made_up.first", "this test", "MIT", url=server.url + "/file")
    with pytest.raises(MissingWeightsError, match="/file sends an HTML page"):
        hub.download(made_up, tmp_path / "file")


def test_teachers_zip_has_the_digest_that_anomalib_publishes() -> None:
    for size in ("s", "m"):
        teacher = catalog.find(f"efficientad-{size}").weights[0]
        assert (teacher.digest, len(teacher.archive)) == ("", 64)


def test_push_warns_of_non_commercial_weights_and_asks_for_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_check, "find_spec", lambda name: None)  # as where torch is not installed
    (tmp_path / "b3.pth").write_bytes(BODY)
    where = ["--store", str(tmp_path / "store")]
    name = catalog.find("fixefficientnet-b3").weights[0].name
    assert run(["weights", "push", name, str(tmp_path / "b3.pth"), *where]) == 0
    assert "CC-BY-NC-4.0 (NON-COMMERCIAL)" in capsys.readouterr().err
    assert run(["weights", "push", "wide_resnet50_2.tv_in1k", str(tmp_path / "b3.pth"), *where]) == 0
    assert "not byte for byte the file" in capsys.readouterr().err
    assert run(["weights", "push", *where]) == 64
    assert "--sweep SWEEP" in capsys.readouterr().err


@pytest.fixture
def textures(monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that needs pictures, in the catalog."""
    wanted = Weights("textures", "made up", "CC0-1.0", kind="pictures")
    entry = replace(catalog.find("padim"), weights=(wanted,))
    monkeypatch.setattr(weights, "entries", lambda: (*catalog.ENTRIES, entry))
    return wanted.name


def test_pictures_are_kept_as_one_tar(textures: str, store: DirectoryStore, tmp_path: Path) -> None:
    for name in ("wood/a.png", "wood/b.png", "stone/a.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    digest = weights.push_weights(store, textures, tmp_path / "pictures")
    (tmp_path / "pictures/wood/a.png").touch()
    assert weights.push_weights(store, textures, tmp_path / "pictures") == digest, "a time changed the tar"
    kept = weights.fetch(store, {textures: digest}, tmp_path / "cache")[textures]
    with tarfile.open(kept) as tar:
        assert tar.getnames() == ["stone/a.png", "wood/a.png", "wood/b.png"]
    assert weights.push_weights(store, textures, kept) == digest, "a tar is kept as it is"


def test_pictures_that_are_none_are_refused(textures: str, store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no tar")
    with pytest.raises(MissingInputError, match="is empty"):
        weights.push_weights(store, textures, tmp_path / "empty")
    with pytest.raises(UsageError, match="neither a folder nor a tar"):
        weights.push_weights(store, textures, tmp_path / "text")
    with pytest.raises(UsageError, match="is a folder; a file is allowed"):
        weights.push_weights(store, NET, tmp_path / "empty")


def test_file_of_an_archive_is_kept_alone(server: Hub, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("weights/small.pth", b"small")
        archive.writestr("weights/medium.pth", b"medium")
    server.body = packed.getvalue()
    teacher = Weights("teacher", "made up", "MIT", url=f"{server.url}/weights.zip", member="small.pth")
    assert hub.download(teacher, tmp_path / "file") == hashlib.sha256(b"small").hexdigest()
    assert (tmp_path / "file").read_bytes() == b"small"
    zipped = hashlib.sha256(server.body).hexdigest()
    small = hashlib.sha256(b"small").hexdigest()
    told = replace(teacher, archive=zipped[:8], digest=small)
    assert hub.download(told, tmp_path / "file") == small
    with pytest.raises(MissingWeightsError, match=f"weights.zip has the SHA-256 {zipped[:12]}, .* deadbeef"):
        hub.download(replace(told, archive="deadbeef"), tmp_path / "file")
    with pytest.raises(MissingWeightsError, match=f"small.pth has the SHA-256 {small[:12]}, .* deadbeef"):
        hub.download(replace(told, digest="deadbeef"), tmp_path / "file")
    with pytest.raises(MissingWeightsError, match="has no large"):
        hub.download(replace(teacher, member="large.pth"), tmp_path / "file")
    server.body = BODY
    with pytest.raises(MissingWeightsError, match="is no zip"):
        hub.download(teacher, tmp_path / "file")
