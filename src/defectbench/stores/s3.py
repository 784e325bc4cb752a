"""A store in a bucket of any S3-compatible server."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from boto3.exceptions import Boto3Error, RetriesExceededError, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as aws
from botocore.config import Config

from defectbench.errors import (
    ConfigurationError,
    ConflictError,
    DefectbenchError,
    MissingInputError,
    MissingObjectError,
    NoRightsError,
    StoreAwayError,
    UsageError,
)
from defectbench.stores.base import ABSENT, Blob, Store, check_key, check_prefix
from defectbench.util.files import disk_errors, draft_path, move_into_place
from defectbench.util.secrets import redact_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WRITE_MARK = "defectbench-write"
"""Object metadata: a random name of the conditional put that wrote the object."""

_MIB = 1 << 20
_TRANSFER = TransferConfig(
    multipart_threshold=16 * _MIB,
    multipart_chunksize=16 * _MIB,
    max_concurrency=4,
    preferred_transfer_client="classic",  # the CRT client breaks on custom endpoints (boto3#4839)
)
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.TokenRetrievalError,
    aws.NoAuthTokenError,
    aws.SSOError,
)
_OUT_OF_REACH = (
    aws.ConnectionError,
    aws.HTTPClientError,
    aws.IncompleteReadError,
    aws.ChecksumError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
)
_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "412"}
_BUSY = {"SlowDown", "RequestTimeout", "OperationAborted", "TooManyRequests", "QuotaExceeded", "Throttling"}
# How servers that keep objects as files refuse a key below another key; AWS allows one.
_NESTED = {
    "ObjectParentIsFile",
    "ExistingObjectIsDirectory",
    "XMinioParentIsObject",
    "XMinioObjectExistsAsDirectory",
}
_UNKNOWN_CREDENTIALS = {"XAdminUserNotFound", "InvalidAccessKeyId"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


class S3Store(Store):
    """Objects below ``s3://bucket/prefix``; a version is the ETag.

    Credentials come from boto3's own chain at every call, so that they may expire and be renewed.

    Args:
        endpoint: the server's URL; default: AWS_ENDPOINT_URL_S3, else AWS itself.
    """

    def __init__(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")
        check_prefix(self.prefix)
        self._endpoint = endpoint
        try:
            self._client = _connect(endpoint)
        except (ValueError, aws.BotoCoreError) as error:
            raise ConfigurationError(f"{self.url}: {error}") from error
        self._server = redact_uri(self._client.meta.endpoint_url)

    def get(self, key: str) -> Blob:
        """Read the object; its version is its ETag."""
        with self._errors(key):
            answer = self._client.get_object(Bucket=self.bucket, Key=self._name(key))
            return Blob(answer["Body"].read(), answer["ETag"])

    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        """Write by one PutObject, with If-None-Match or If-Match where something is expected."""
        if expected is None:
            with self._errors(key):
                return self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data)["ETag"]
        return self._put_if(key, data, expected)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List page by page; directory markers of other tools are no keys."""
        check_prefix(prefix)
        pages = self._client.get_paginator("list_objects_v2")
        with self._errors(prefix):
            found = [
                item["Key"].removeprefix(self.prefix)
                for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
                for item in page.get("Contents", ())
                if not item["Key"].endswith("/")
            ]
        yield from sorted(found)

    def delete(self, key: str) -> None:
        """Remove the object."""
        # The inner one turns a 404 into the error that is suppressed; the outer one translates all others.
        with self._errors(key), contextlib.suppress(MissingObjectError), self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def upload(self, key: str, path: Path) -> None:
        """Write in parts of 16 MiB; MissingInputError where there is no such file."""
        if not path.is_file():
            raise MissingInputError(f"{path}: no such file to upload as {key}")
        with disk_errors(path), self._errors(key):
            self._client.upload_file(str(path), self.bucket, self._name(key), Config=_TRANSFER)

    def download(self, key: str, path: Path) -> None:
        """Read in parts of 16 MiB beside ``path``, then give the file its name."""
        name = self._name(key)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft_path(path.parent) as part, self._errors(key):
                self._client.download_file(self.bucket, name, str(part), Config=_TRANSFER)
                move_into_place(part, path)

    def renew(self) -> None:
        """Connect anew: boto3 reads a credentials file, and the environment, once for each session."""
        with self._errors(""):
            self._client = _connect(self._endpoint)

    def _name(self, key: str) -> str:
        """Return the object's name in the bucket."""
        return self.prefix + check_key(key)

    def _put_if(self, key: str, data: bytes, expected: str) -> str:
        """Write conditionally, with a mark of our own in the metadata."""
        name, mark = self._name(key), secrets.token_hex(12)
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if expected == ABSENT else {"IfMatch": expected}
        with self._errors(key, expected):
            try:
                answer = self._client.put_object(
                    Bucket=self.bucket, Key=name, Body=data, Metadata={WRITE_MARK: mark}, **condition
                )
                return answer["ETag"]
            except aws.ClientError as error:
                # The first try may have won and its answer been lost: then the second meets our own write.
                own = self._own_write(name, mark) if _lost(error) and _retried(error) else None
                if own is None:
                    raise
                return own

    def _own_write(self, name: str, mark: str) -> str | None:
        """Return the ETag of the object if this very put wrote it."""
        try:
            found = self._client.head_object(Bucket=self.bucket, Key=name)
        except aws.ClientError as error:
            if _status(error) == 404:
                return None
            raise
        return found["ETag"] if found["Metadata"].get(WRITE_MARK) == mark else None

    @contextlib.contextmanager
    def _errors(self, key: str, expected: str | None = None) -> Iterator[None]:
        """Raise boto3's errors as the store's."""
        try:
            yield
        except aws.ClientError as error:
            raise self._refusal(error, key, expected) from error
        except aws.BotoCoreError as error:
            raise self._failure(error) from error
        except RetriesExceededError as error:
            raise StoreAwayError(
                f"{self._place()}: {key} could not be read to its end; try again later"
            ) from error
        except S3UploadFailedError as error:
            cause = error.__context__
            if isinstance(cause, aws.ClientError):
                raise self._refusal(cause, key, expected) from error
            raise StoreAwayError(f"{self._place()}: {key} could not be written; try again later") from error
        except Boto3Error as error:
            raise ConfigurationError(f"{self._place()}: {error}") from error

    def _place(self) -> str:
        """Return where the store is, for messages: URL and server, without credentials."""
        return f"{self.url} at {self._server}"

    def _failure(self, error: aws.BotoCoreError) -> DefectbenchError:
        """Return the error of a request that got no answer."""
        if isinstance(error, _NO_CREDENTIALS):
            return NoRightsError(f"{self._place()}: no usable credentials; {_CREDENTIALS}")
        if isinstance(error, aws.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ConfigurationError(
                f"{self._place()}: its certificate is signed by nobody whom this machine trusts; name the "
                "file of your own authority's certificate: AWS_CA_BUNDLE=/path/to/ca.pem"
            )
        if isinstance(error, _OUT_OF_REACH):
            reason = type(error).__name__
            return StoreAwayError(
                f"{self._place()} is out of reach ({reason}); see that it runs, then try again"
            )
        if isinstance(error, aws.ParamValidationError):
            return UsageError(f"{self.url}: no such bucket or key can exist")
        return ConfigurationError(f"{self._place()}: {error}")

    def _refusal(self, error: aws.ClientError, key: str, expected: str | None) -> DefectbenchError:
        """Return the error of a refused request, without the server's text: that may repeat credentials."""
        code, status, where = _code(error), _status(error), self._place()
        if code in _NESTED:
            return UsageError(f"{key}: a key below this one, or above it, is in {self.url}")
        if code == "RequestTimeTooSkewed":
            return ConfigurationError(f"{where}: this machine's clock is wrong; set it")
        if code in _UNKNOWN_CREDENTIALS or status in (401, 403) or "Token" in code:
            return NoRightsError(f"{where} refuses these credentials ({code}); check them or {_CREDENTIALS}")
        # A 404 to a listing means the bucket: a listing names no key.
        if code == "NoSuchBucket" or (status == 404 and not key):
            return MissingInputError(f"{where}: no bucket {self.bucket!r}; create it, or name another store")
        if expected is not None and (_lost(error) or status == 404):
            was = "is already there" if expected == ABSENT else "was changed or removed by somebody else"
            return ConflictError(f"{key} in {self.url} {was}")
        if status == 404:
            return MissingObjectError(f"no {key} in {self.url}")
        # 501 says that the server lacks the operation: a second try cannot mend it.
        if code in _BUSY or status in (408, 409, 412, 429) or (status >= 500 and status != 501):
            return StoreAwayError(f"{where} cannot do it now ({code or status}); try again later")
        if code in _ELSEWHERE or status in (301, 307):
            return ConfigurationError(f"{where}: the bucket is in another region; set AWS_DEFAULT_REGION")
        return ConfigurationError(f"{where} cannot do what a store needs: {code or status} for {key}")


def _connect(endpoint: str | None) -> S3Client:
    """Return a client whose requests every S3-compatible server understands."""
    session = boto3.Session()
    return session.client(
        "s3",
        endpoint_url=endpoint,
        # Signing needs a region; servers other than AWS ignore which.
        region_name=session.region_name or "us-east-1",
        config=Config(
            signature_version="s3v4",
            # Many servers lack the newer checksums; contents are verified by SHA-256 where it matters.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard"},
            connect_timeout=10,
            read_timeout=60,
        ),
    )


def _code(error: aws.ClientError) -> str:
    """Return the error code in the server's answer, which is S3's or the server's own."""
    return error.response.get("Error", {}).get("Code", "")


def _status(error: aws.ClientError) -> int:
    """Return the HTTP status of an answer; 0 without one."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _lost(error: aws.ClientError) -> bool:
    """Whether the condition of a put did not hold; servers differ in how they say so."""
    return _code(error) in _LOST or _status(error) == 412


def _retried(error: aws.ClientError) -> bool:
    """Whether boto3 sent the request more than once."""
    return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0
