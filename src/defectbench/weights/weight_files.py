"""What a file that is called weights is by its first bytes: found out before it is stored, without torch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from defectbench.errors import DataError

WANTED = "a safetensors file or a state dict saved by torch.save is wanted"

_HEAD = 1 << 16
_SHOWN = 60
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for (run: git lfs pull)"),
    (b"/annex/objects/", "a git-annex pointer, not the file that it stands for (run: git annex get)"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "an xz archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x7fELF", "a program"),
)
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The number that torch.save wrote first before version 1.6, as a pickle has it."""


def check_file(path: Path) -> None:
    """Refuse a file that cannot be weights, whatever its name ends with.

    Raises:
        DataError: names the file and what it is.
        OSError: it cannot be read.
    """
    found = _foreign(path)
    if found is not None:
        raise DataError(f"weights file {path}: {found}; {WANTED}")


def _foreign(path: Path) -> str | None:
    """Return what the file is in words, None where it may be weights."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "an empty file"
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    for kind in _KINDS:
        found = kind(path, head)
        if found is not None:
            return found or None
    return "neither of them"


def _text(path: Path, head: bytes) -> str | None:
    """Return which text it is; None where it is none."""
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        text = head.decode("utf-16", "ignore") if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "\0"
    if not all(character.isprintable() or character in "\r\n\t\f" for character in text):
        return None
    lowered = text.lstrip().lower()
    if lowered.startswith(("<!doctype html", "<html")) or "<html" in lowered[:2000]:
        return "an HTML page, such as a proxy or a server answers"
    if lowered.startswith("<"):
        return f"an XML document ({_beginning(text)})"
    if lowered.startswith(("{", "[")):
        return f"a JSON document ({_beginning(text)})"
    return f"a text ({_beginning(text)})"


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN else words[:_SHOWN] + "..."


def _safetensors(path: Path, head: bytes) -> str | None:
    """Return what is wrong with a safetensors file, nothing where it is whole, None where it is none."""
    if len(head) < 9 or head[8:9] != b"{":
        return None
    length = int.from_bytes(head[:8], "little")
    size = path.stat().st_size
    if length > size - 8:
        return "a safetensors file that is cut short"
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            end = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "a safetensors file with a damaged header"
    return "" if size == end else f"a safetensors file of {size} bytes, of which its header says {end}"


def _archive(path: Path, head: bytes) -> str | None:
    """The same of torch's zip."""
    if not head.startswith(b"PK"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        return "a zip archive that is cut short or damaged"
    if damaged is not None:
        return f"a damaged zip archive ({damaged})"
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program: save its state_dict() instead"
    if not any(name.endswith("data.pkl") for name in names):
        shown = ", ".join(names[:3])
        return f"a zip archive of {len(names)} files that torch.save did not write ({shown}): unpack it"
    return ""


def _pickle(path: Path, head: bytes) -> str | None:
    """The same of torch's older format."""
    if head[:1] != b"\x80" or head[1:2] not in b"\x02\x03\x04\x05":
        return None
    return "" if _LEGACY in head[:64] else "a pickle that torch.save did not write, which is never run"


def _graph(path: Path, head: bytes) -> str | None:
    """Return that it is a graph of ONNX or TensorFlow Lite."""
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite graph"
    # The first field of ONNX is its version, the second its producer or what follows.
    if head[:1] == b"\x08" and len(head) > 3 and head[1] < 32 and head[2] in (0x12, 0x1A, 0x3A, 0x42):
        return "an ONNX graph: save the network's state_dict() instead"
    return None


_KINDS: tuple[Callable[[Path, bytes], str | None], ...] = (_text, _safetensors, _archive, _pickle, _graph)
