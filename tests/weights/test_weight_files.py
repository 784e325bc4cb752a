"""Files that are called weights and are something else, refused by name before they are stored."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from defectbench.errors import DataError
from defectbench.weights.weight_files import check_file


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def tensors(extra: int = 0, **header: object) -> bytes:
    """A safetensors file of one tensor of 8 bytes, ``extra`` bytes longer or shorter than its header says."""
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8 + extra)


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


FOREIGN = (
    ("an HTML page", b"<!DOCTYPE html><title>502</title>\n" * 50),
    ("an HTML page", b"\xef\xbb\xbf  \n<HTML><body>login</body></html>"),
    ("an HTML page", b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x"><html lang="en"></html>'),
    ("an XML document", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
    ("a JSON document", b'{"error": "Repository not found"}'),
    ("a JSON document (", b'  [{"message": "Not Found"}]\n'),
    ("a text (404: Not Found)", b"404: Not Found"),
    ("a text (Entry not found", b"Entry not found" * 30),
    ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"),
    ("a git-annex pointer", b"/annex/objects/SHA256E-s3--00.pth\n"),
    ("an empty file", b""),
    ("a zip archive that is cut short", zipped(archive__data=b"1" * 5000)[:-60]),
    ("a zip archive of 2 files", zipped(a=b"1", b=b"2")),
    ("a TorchScript program", zipped(net__data__pkl=b"", net__constants__pkl=b"").replace(b"/pkl", b".pkl")),
    ("a pickle that torch.save did not write", pickle.dumps({"a": 1}, 4)),
    ("an ONNX graph", b"\x08\x08\x12\x07pytorch\x1a\x052.6.0" + bytes(99)),
    ("a TensorFlow Lite graph", b"\x1c\0\0\0TFL3" + bytes(99)),
    ("a safetensors file that is cut short", tensors()[:30]),
    ("a safetensors file of", tensors(-3)),
    ("a safetensors file of", tensors(4)),
    ("a safetensors file with a damaged header", tensors(b={"dtype": "F32"})),
    ("a NumPy array", array()),
    ("an HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(99)),
    ("a gzip archive", b"\x1f\x8b\x08" + bytes(99)),
    ("a PNG picture", b"\x89PNG\r\n\x1a\n" + bytes(99)),
    ("neither of them", bytes(range(200, 256)) * 9),
)


# Named by place: a zip holds the time, and workers that collect in another second would differ.
@pytest.mark.parametrize(("what", "data"), FOREIGN, ids=range(len(FOREIGN)))
def test_file_that_is_no_weights_is_named_for_what_it_is(what: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        check_file(path)
    (line,) = caught.value.problems
    assert line.startswith(f"weights file {path}: {what}")


def test_file_whose_zip_lost_a_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    whole = zipped(archive__data=b"tensor" * 900, archive__more=b"x")
    path.write_bytes(whole.replace(b"tensortensor", b"tensorTensor", 1))
    with pytest.raises(DataError, match="damaged zip archive"):
        check_file(path)


@pytest.mark.torch
@pytest.mark.parametrize("older", [False, True])
def test_file_of_torch_and_safetensors_is_let_through(older: bool, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"a": torch.zeros(3), "b.weight": torch.ones(2, 2)}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=not older)
    check_file(tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors", metadata={"format": "pt"})
    check_file(tmp_path / "net.safetensors")
