"""ObjectStorage in a bucket of an S3 service, through obstore, which is imported only here (extra `s3`).

Credentials and region come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
AWS_REGION, web identity tokens, container and instance roles.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import S3Store

from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.storage.protocol import CHUNK_SIZE, ObjectPart, ObjectStat

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 30
"""Seconds that one request may take, with at most `CHUNK_SIZE` bytes in either direction."""
RETRIES = 3
RETRY_S = 30
CONCURRENT_PARTS = 3
DELETED_AT_ONCE = 1000
MAX_SIZE = 2**50
"""More bytes than any object has."""

CREDENTIAL_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
CONTENT_TYPES = {".png": "image/png", ".webp": "image/webp", ".mp4": "video/mp4", ".json": "application/json"}

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_BUCKET_MISSING = "NoSuchBucket"
_RANGE_OUTSIDE = "416"
_IN_PROGRESS = "ConditionalRequestConflict"
_FULL = {
    "507",
    "QuotaExceeded",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "StorageFull",
    "InsufficientCapacity",
}
_CONNECT_CAUSES = (
    (re.compile(r'error: "failed to lookup address information: ([^"]*)"'), "{}"),
    (
        re.compile(r"InvalidCertificate\(\s*(NotValidForName)"),
        "the certificate of the service is for another host name",
    ),
    (
        re.compile(r"InvalidCertificate\(\s*(\w+)"),
        "the certificate of the service is not trusted ({}); SSL_CERT_FILE may name a file with its authority",
    ),
    (re.compile(r"InvalidMessage\("), "the service does not use TLS: write http:// instead of https://"),
    (re.compile(r'message: "([^"]*)"'), "{}"),
    (re.compile(r"TimedOut|operation timed out"), "no response in time"),
)
"""What the library's report, which follows its first line, says about a connection that could not be made."""
_REFUSED = {"401", "403", "405", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}


class S3Storage:
    """Objects below a prefix of a bucket."""

    def __init__(
        self, bucket: str, prefix: str = "", *, endpoint: str | None = None, public_endpoint: str | None = None
    ) -> None:
        """Connect at the first use. `public_endpoint` is the address of the service in presigned URLs."""
        self._address = "/".join(part for part in (f"s3://{bucket}", prefix) if part)
        self._store = _open(bucket, prefix, endpoint)
        self._signer = _open(bucket, prefix, public_endpoint) if public_endpoint else self._store

    @property
    def address(self) -> str:
        """`s3://BUCKET/PREFIX`."""
        return self._address

    def local_path(self, key: str) -> None:
        """Return None: objects are not local files."""
        del key

    def write(self, key: str, data: bytes, *, replace: bool = False) -> None:
        """Write an object; creating one is a conditional request, so that of several writers one succeeds.

        A request that is repeated after a lost response may find its own object, which has the same content.
        """
        mode: Any = "overwrite" if replace else "create"
        with self._errors(key, is_write=True):
            try:
                obstore.put(self._store, key, data, mode=mode, attributes=_attributes(key), use_multipart=False)
            except exceptions.AlreadyExistsError as error:
                if _IN_PROGRESS in _causes(error):
                    raise StorageUnreachable(errno.EAGAIN, "another request writes it", self._name(key)) from error
                if not self._has_content(key, data):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._name(key)) from error

    def _has_content(self, key: str, data: bytes) -> bool:
        try:
            return int(obstore.head(self._store, key)["size"]) == len(data) and self.get(key) == data
        except FileNotFoundError:  # deleted meanwhile
            return False

    def write_file(self, key: str, path: Path, *, replace: bool = False) -> None:
        """Upload a file, in parts if it is larger than `CHUNK_SIZE`, then remove it.

        An upload in parts has no condition: of two writers that create the same large object at the same time, the
        last one wins.
        """
        if path.stat().st_size <= CHUNK_SIZE:
            self.write(key, path.read_bytes(), replace=replace)
        elif not replace and self._exists(key):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._name(key))
        else:
            self.copy_file(key, path)
        path.unlink()

    def copy_file(self, key: str, path: Path) -> None:
        """Create or replace an object with the content of a file, which stays."""
        with path.open("rb") as file, self._errors(key, is_write=True):
            obstore.put(
                *(self._store, key, file),
                attributes=_attributes(key),
                chunk_size=CHUNK_SIZE,
                max_concurrency=CONCURRENT_PARTS,
            )

    def _exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except FileNotFoundError:
            return False
        return True

    def get(self, key: str) -> bytes:
        """Return the content, requested in parts if it is large."""
        return b"".join(self.chunks(key))

    def get_range(self, key: str, start: int, end: int) -> ObjectPart:
        """Return the bytes from `start` to before `end`, as far as they exist."""
        if start < min(end, MAX_SIZE):
            with self._errors(key):
                try:
                    result = obstore.get(self._store, key, options={"range": (start, end)})
                    part = ObjectPart(bytes(result.bytes()), int(result.meta["size"]))
                except exceptions.GenericError as error:
                    if _RANGE_OUTSIDE not in _causes(error):
                        raise
                else:
                    if len(part.content) != min(end, part.size) - start:
                        raise StorageUnreachable(errno.EIO, "the service sent only a part of it", self._name(key))
                    return part
        return ObjectPart(b"", self.stat(key).size)

    def chunks(self, key: str, size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Yield the content in pieces, each by a request of its own: a slow reader holds no connection."""
        start, total = 0, 1
        while start < total:
            content, total = self.get_range(key, start, start + size)
            start += len(content)
            if content:
                yield content
            elif start < total:
                raise StorageUnreachable(errno.EIO, "the service refused a part of it", self._name(key))

    def stat(self, key: str) -> ObjectStat:
        """Return size and time of an object."""
        with self._errors(key):
            return _stat(obstore.head(self._store, key))

    def delete(self, keys: Iterable[str]) -> dict[str, OSError]:
        """Delete objects, up to `DELETED_AT_ONCE` by a request; a request that fails counts for all of its keys."""
        names, failed = list(keys), dict[str, OSError]()
        for start in range(0, len(names), DELETED_AT_ONCE):
            some = names[start : start + DELETED_AT_ONCE]
            try:
                with self._errors(some[0]):
                    obstore.delete(self._store, some)
            except OSError as error:
                failed |= dict.fromkeys(some, error)
        return failed

    def copy(self, source: str, target: str) -> None:
        """Create or replace `target`; the service copies."""
        if source == target:  # which S3 refuses
            self.stat(source)
            return
        with self._errors(source):
            obstore.copy(self._store, source, target)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield the objects whose keys are below `prefix`."""
        pages = iter(obstore.list(self._store, prefix))
        while True:
            with self._errors(prefix):
                page = next(pages, None)
            if page is None:
                return
            yield from map(_stat, page)

    def list_partial(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield nothing: an object appears when it is complete."""
        del prefix
        return iter(())

    def presign(self, key: str, seconds: int) -> str:
        """Return a URL at which anyone may read the object for `seconds`."""
        with self._errors(key):
            return str(obstore.sign(self._signer, "GET", key, timedelta(seconds=seconds)))

    def remove_partial(self, keys: Iterable[str]) -> None:
        """Do nothing: an object appears when it is complete; the bucket's lifecycle rule removes aborted uploads."""
        del keys

    def _name(self, key: str) -> str:
        return f"{self._address}/{key}"

    @contextlib.contextmanager
    def _errors(self, key: str, *, is_write: bool = False) -> Iterator[None]:
        """Raise the library's errors as OSError; status 404 of a request that writes is about the bucket."""
        try:
            yield
        except FileNotFoundError as error:
            if is_write or _BUCKET_MISSING in _causes(error):
                raise StorageUnreachable(errno.ENODEV, "the bucket does not exist", self._address) from error
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._name(key)) from error
        except ValueError as error:  # a key that no object can have
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._name(key)) from error
        except exceptions.BaseError as error:
            raise _to_os_error(error, self._name(key)) from error


def _open(bucket: str, prefix: str, endpoint: str | None) -> S3Store:
    options: dict[str, Any] = {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint} if endpoint else {}
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
                "allow_http": bool(endpoint) and urlsplit(endpoint).scheme == "http",
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
            **options,
        )
    except (exceptions.BaseError, ValueError) as error:  # such as a value of AWS_… in the environment
        raise OSError(errno.EINVAL, _reason(error), f"s3://{bucket}") from error


def _attributes(key: str) -> Any:
    """Return the headers that are stored with an object: browsers read presigned URLs directly."""
    content_type = CONTENT_TYPES.get(PurePosixPath(key).suffix)
    return {"Content-Type": content_type} if content_type else None


def _stat(meta: Any) -> ObjectStat:
    match = _MD5.fullmatch(meta["e_tag"] or "")
    return ObjectStat(meta["path"], int(meta["size"]), meta["last_modified"], match[1] if match else None)


def _causes(error: BaseException) -> set[str]:
    """Return the HTTP status and the code in the service's response, as far as the error has them."""
    text = str(error)
    return {*_STATUS.findall(text), *_CODE.findall(text)}


def _to_os_error(error: exceptions.BaseError, name: str) -> OSError:
    """Return the error of the operating system that has the same cause."""
    causes = _causes(error)
    reason = _reason(error)
    if causes & _FULL:
        return OSError(errno.ENOSPC, reason, name)
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError) or causes & _REFUSED:
        return PermissionError(errno.EACCES, reason, name)
    return StorageUnreachable(errno.EHOSTUNREACH, reason, name)


def _reason(error: BaseException) -> str:
    """Return one line: the service's code and message, or else the library's; and whether there are credentials."""
    has_credentials = any(os.environ.get(name) for name in CREDENTIAL_VARIABLES)
    return _cause(error) if has_credentials else f"no credentials in the environment, and {_cause(error)}"


def _cause(error: BaseException) -> str:
    text = str(error)
    code, message = _CODE.search(text), re.search(r"<Message>([^<]*)</Message>", text)
    if code:
        return f"{code[1]}: {message[1]}" if message and message[1] else code[1]
    first, _, report = text.partition("\n")
    return first.removeprefix("Generic S3 error: ").split(" in ")[0] + _tail(first) + _connect_cause(report)


def _connect_cause(report: str) -> str:
    """Return why no connection could be made, for the end of a line; empty for other errors."""
    if "HttpError" not in report:
        return ""
    for pattern, text in _CONNECT_CAUSES:
        if match := pattern.search(report):
            return f": {text.format(*match.groups())}"
    return ""


def _tail(line: str) -> str:
    """Return the last clause of the library's line, which names the cause."""
    return f" - {line.rpartition(' - ')[2]}" if " - " in line else ""
