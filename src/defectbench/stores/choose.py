"""From a URL to the store that it names.

Another package registers a store by an entry point of the group ``defectbench.stores``: its name is the URL's
scheme, its object takes the URL and returns a :class:`Store` (docs/extending.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from defectbench.errors import ConfigurationError, UsageError, nearest
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from defectbench.util.plugins import find_scheme, schemes

GROUP = "defectbench.stores"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(s3|file):")


def scheme_of(url: str) -> str:
    """Return the scheme of a store's URL, in small letters; ``file`` for a path.

    >>> scheme_of("S3://bucket/x"), scheme_of("./bench")
    ('s3', 'file')
    """
    found = _SCHEME.match(url)
    return (found[1] or found[2]).lower() if found else "file"


def open_store(url: str) -> Store:
    """Return the store at ``url``: ``s3://bucket/prefix``, ``file:///path`` or a path, or a package's own.

    Touches nothing yet.

    The S3 endpoint comes from AWS_ENDPOINT_URL_S3, the credentials from where every AWS tool takes them.

    Raises:
        UsageError: no such kind of store, or the URL carries credentials.
        ConfigurationError: the extra ``s3`` is not installed, or a package's store cannot be loaded.

    >>> open_store("/data/bench").url
    '/data/bench'
    """
    if not url.strip():
        raise UsageError("the store's URL is empty; allowed: s3://bucket/prefix, file:///path, a path")
    if not _SCHEME.match(url):
        return DirectoryStore(Path(url))
    scheme = scheme_of(url)
    opener = find_scheme(GROUP, scheme, _BUILTIN) or _BUILTIN.get(scheme)
    if opener is None:
        known = {*_BUILTIN, *schemes(GROUP)}
        raise UsageError(f"no store of kind {scheme}://; {nearest(scheme, known)}, or a path")
    store: Store = opener(url)
    return store


def _open_s3(url: str) -> Store:
    """Return the store of an ``s3://`` URL."""
    bucket, prefix = _bucket(url)
    try:
        from defectbench.stores.s3 import S3Store  # boto3 is an extra, and slow to import
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"an s3:// store needs the package {error.name}; install the extra: pip install 'defectbench[s3]'"
        ) from error
    return S3Store(bucket, prefix)


def _open_file(url: str) -> Store:
    """Return the store of a ``file:`` URL."""
    return DirectoryStore(_file_path(url))


def _file_path(url: str) -> Path:
    """Return the path of a file URL, which must be on this machine."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(f"store {url!r}: a file URL is file:///absolute/path")
    return Path(unquote(parts.path))


def _bucket(url: str) -> tuple[str, str]:
    """Return an S3 URL's bucket and prefix."""
    bucket, _, prefix = url.partition("://")[2].partition("/")
    if "@" in bucket:
        raise UsageError(
            "an s3:// URL carries no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not bucket or set(bucket) & set("?#: "):
        raise UsageError(f"store {url!r}: an S3 store is s3://bucket or s3://bucket/prefix")
    return bucket, prefix.strip("/")


_BUILTIN: Mapping[str, Callable[[str], Store]] = {"file": _open_file, "s3": _open_s3}
"""Scheme -> what opens its URLs."""
