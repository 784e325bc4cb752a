"""JSON documents: read by one typed reader, sealed by a digest of themselves when they are written.

A document is an object with ``schema``. Those that this version writes have schema 2 and end with ``seal``:
the SHA-256 of all bytes before it. Version 0.1.0 wrote schema 1, or none, without a digest; both are read.
Whatever else lies there is damage, which the error names: readers count it as one document's trouble.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from defectbench.errors import DataError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = 2
"""Of the documents that this version writes."""

LARGEST = 256 << 20
"""Bytes; a record of a hundred thousand readings has a tenth of it."""

STRICT: Any = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""As ``__pydantic_config__`` of a dataclass: no field of another type, none that it does not have."""

_SEAL = re.compile(rb',\s*"seal":\s*"([0-9a-f]{64})"\s*\}\s*\Z')
_TAIL = 128
_SHOWN = 3
Kind = TypeVar("Kind")


def write_document(
    document: Mapping[str, Any], indent: int | None = 1, *, sort_keys: bool = False, finite: bool = True
) -> bytes:
    """Return the text of a document, with its schema and its seal.

    Args:
        finite: NaN and infinity, which are no JSON, are refused (ValueError).

    >>> write_document({"a": 1}, indent=None).startswith(b'{"schema":2,"a":1,"seal":"')
    True
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        {"schema": SCHEMA, **document},
        indent=indent,
        sort_keys=sort_keys,
        allow_nan=not finite,
        ensure_ascii=False,
        separators=separators,
    )
    # A file name that is no UTF-8 may stand in a message: what no JSON reader takes becomes a question mark.
    body = text.encode("utf-8", "replace").removesuffix(b"}").rstrip()
    colon, space = (b":", b"") if indent is None else (b": ", b"\n" + b" " * indent)
    end = b"}\n" if indent is None else b"\n}\n"
    seal = hashlib.sha256(body).hexdigest().encode()
    return body + b"," + space + b'"seal"' + colon + b'"' + seal + b'"' + end


def read_document(data: bytes, what: str, *, finite: bool = True) -> dict[str, Any]:
    """Return what :func:`write_document` was given, or a document of version 0.1.0, without ``schema``.

    Args:
        what: the document's name, for the error.

    Raises:
        DataError: it is no JSON object, of another schema, or not as it was written.
    """
    document = read_json(data, what, finite=finite)
    if not isinstance(document, dict):
        raise DataError(f"{what} is damaged: expected a JSON object, got {document!r:.40}")
    schema = document.pop("schema", 1)
    if type(schema) is not int or schema not in (1, SCHEMA):
        raise DataError(f"{what} has schema {schema!r:.40}; this version reads 1 and {SCHEMA}")
    seal = document.pop("seal", None)
    if schema == 1 and seal is None:
        return document
    found = _SEAL.search(data, max(0, len(data) - _TAIL))
    if found is None or hashlib.sha256(data[: found.start()]).hexdigest().encode() != found[1]:
        raise DataError(f"{what} is damaged: its contents are not those that its seal states")
    return document


def read_json(data: bytes, what: str, *, finite: bool = True) -> Any:
    """Return any JSON text's value; DataError where it is none, too large, or nested too deeply."""
    if len(data) > LARGEST:
        raise DataError(f"{what} is damaged: it has {len(data)} bytes, {LARGEST} are allowed")
    try:
        return json.loads(data, parse_constant=_refuse if finite else None)
    except RecursionError:
        raise DataError(f"{what} is damaged: nested too deeply") from None
    except ValueError as error:
        reason = str(error) if data.strip() else "it is empty"
        raise DataError(f"{what} is damaged: not JSON: {reason}") from error


def typed(kind: type[Kind], document: Any, what: str) -> Kind:
    """Return the document as an instance of the dataclass ``kind``, whose fields have the types it states.

    Raises:
        DataError: a field is missing, unknown, or of another type; the first of them are named.
    """
    from pydantic import ValidationError

    try:
        # As JSON: there a list is read as a tuple, and a name as a member of an enumeration.
        adapter: TypeAdapter[Kind] = _adapter(kind)  # type: ignore[arg-type]
        return adapter.validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, each['loc'])) or 'the document'}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)[:_SHOWN]
        ]
        more = f" and {error.error_count() - _SHOWN} more" if error.error_count() > _SHOWN else ""
        raise DataError(f"{what} is damaged: {'; '.join(faults)}{more}") from error


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    """Build a type's validator once in a process."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)  # type: ignore[arg-type]


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError(f"{constant} is no JSON")
