"""Published weights from where their authors, or timm, keep them: the only place that asks the internet.

Called by ``weights push`` alone, on a machine that has the internet; planning, jobs and models never do.
"""

from __future__ import annotations

import os
import urllib.request
import zipfile
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError

from defectbench.catalog import Weights
from defectbench.errors import DataError, MissingWeightsError, TryAgainError
from defectbench.weights.store import digest_of, is_full_name
from defectbench.weights.weight_files import check_file

PATIENCE = 60.0
"""Seconds without an answer after which a download is given up."""

_CHUNK = 1 << 20
_GONE = (401, 403, 404, 410)
_HASH = "X-Linked-ETag"
"""The header in which the hub tells the SHA-256 of a large file, before it sends elsewhere for it."""


def address(weights: Weights) -> str:
    """Return where the published file lies: its authors' place, or timm's on the hub (HF_ENDPOINT).

    Raises:
        MissingWeightsError: nobody says; the user must bring it.
    """
    if weights.url:
        return weights.url
    if weights.kind == "file" and is_full_name(weights.name):
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{endpoint.rstrip('/')}/timm/{weights.name}/resolve/main/model.safetensors"
    raise MissingWeightsError(
        f"{weights.name} has no address to fetch it from ({weights.source}): bring it with "
        f"`defectbench weights push {weights.name} PATH`"
    )


def download(weights: Weights, path: Path) -> str:
    """Write the published file to ``path`` and return its SHA-256, checked against what its source tells.

    Raises:
        MissingWeightsError: the source has no such file, or sends another than it tells of.
        TryAgainError: the source is out of reach, or broke off.
    """
    url = address(weights)
    told = _DigestRedirects()
    try:
        with urllib.request.build_opener(told).open(url, timeout=PATIENCE) as answer:
            told.note(answer.headers)
            received = _write(answer, path)
            length = answer.headers.get("Content-Length")
    except HTTPError as error:
        error.close()  # it is the answer too, with its socket
        kind = MissingWeightsError if error.code in _GONE else TryAgainError
        raise kind(f"{weights.name}: {url} answers {error.code} {error.reason}") from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise TryAgainError(f"{weights.name}: {url} is out of reach ({error})") from error
    if length is not None and received != int(length):
        raise TryAgainError(f"{weights.name}: {url} broke off after {received} of {length} bytes")
    got = digest_of(path)
    if told.digest not in ("", got):
        raise MissingWeightsError(f"{weights.name}: {url} tells of {told.digest[:12]} and sends {got[:12]}")
    if not told.digest and weights.kind == "file" and not weights.member:
        _check_kind(weights, path, url)
    if not weights.url:  # the catalog's digest is of timm's older file, not of the hub's
        return got
    if weights.member:
        _agree(weights, url, got, weights.archive)
        _keep_member(weights, path, url)
        got = digest_of(path)
    _agree(weights, weights.member or url, got, weights.digest)
    return got


def _check_kind(weights: Weights, path: Path, url: str) -> None:
    """Refuse what a proxy answers in the file's place, where nobody tells its SHA-256."""
    try:
        check_file(path)
    except DataError as error:
        says = str(error).replace(f"weights file {path}: ", "")
        raise MissingWeightsError(f"{weights.name}: {url} sends {says}") from error


def _agree(weights: Weights, what: str, got: str, published: str) -> None:
    if not got.startswith(published):
        raise MissingWeightsError(
            f"{weights.name}: {what} has the SHA-256 {got[:12]}, the published file's begins {published[:12]}"
        )


def _keep_member(weights: Weights, path: Path, url: str) -> None:
    """Put the one file that is meant in the zip's place."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if PurePosixPath(name).name == weights.member]
            if not names:
                raise MissingWeightsError(f"{weights.name}: {url} has no {weights.member}")
            content = archive.read(names[0])
    except zipfile.BadZipFile as error:
        raise MissingWeightsError(f"{weights.name}: {url} is no zip ({error})") from error
    path.write_bytes(content)


def _write(source: IO[bytes], path: Path) -> int:
    """Copy in pieces; return how many bytes."""
    received = 0
    with path.open("wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            received += len(chunk)
    return received


class _DigestRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, noting the SHA-256 that an answer on the way tells."""

    digest = ""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.note(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def note(self, headers: HTTPMessage) -> None:
        """Take a SHA-256 where the headers have one."""
        found = str(headers.get(_HASH, "")).strip('"')
        if len(found) == 64:
            self.digest = found
