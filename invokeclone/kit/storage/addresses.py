"""From an address to a storage: `s3://BUCKET/PREFIX`, `file:///PATH`, or no address for the folders of the settings."""

import os
import re
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import InsufficientStorage
from invokeclone.kit.files.storage import make_private_folder
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.protocol import ObjectStorage, StoredFile

STYLE_PRESETS, WORKFLOW_THUMBNAILS = "style_presets", "workflow_thumbnails"
AREAS = ("images", "videos", STYLE_PRESETS, WORKFLOW_THUMBNAILS)
"""First components of all keys."""
ZIPS = "zips"
"""First component of the keys of zip files that wait for their download; they are not copied."""
PROBE = ".probe"
"""First component of the keys of the small objects with which `check` tries a storage."""
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


class StorageNotUsable(InsufficientStorage):
    """The storage cannot be used; the text says why and what to do."""


def open_storage(settings: Settings) -> ObjectStorage:
    """Return the storage of the settings; raises StorageNotUsable."""
    if settings.storage_url is None:
        return local_storage(settings)
    return open_address(settings.storage_url, settings)


def local_storage(settings: Settings) -> LocalStorage:
    """Return the storage in the folders of the settings."""
    return LocalStorage(
        settings.outputs_path,
        {STYLE_PRESETS: settings.style_presets_path, WORKFLOW_THUMBNAILS: settings.workflow_thumbnails_path},
    )


def open_address(address: str, settings: Settings) -> ObjectStorage:
    """Return the storage at an address; raises StorageNotUsable."""
    wrong = StorageNotUsable(
        f"{_without_user(address)} is not a storage address: use s3://BUCKET, s3://BUCKET/PREFIX or file:///PATH, "
        "without credentials, query or fragment"
    )
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise wrong from error
    if parts.query or parts.fragment or not address.isprintable():
        raise wrong
    path = unquote(parts.path)
    components = [component for component in path.split("/") if component]
    if parts.scheme == "file" and not parts.netloc and components and ".." not in components:
        return LocalStorage(Path(path))
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc) and not {".", ".."} & set(components):
        return _open_s3(parts.netloc, "/".join(components), settings)
    raise wrong


def _without_user(address: str) -> str:
    """Return an address for a message, without what may be credentials."""
    return re.sub(r"[^/]*@", "", address)


def _open_s3(bucket: str, prefix: str, settings: Settings) -> ObjectStorage:
    try:
        from invokeclone.kit.storage.s3 import S3Storage  # imports a library of the extra
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise StorageNotUsable("S3 needs the library obstore: pip install 'invokeclone[s3]'") from error
    for endpoint in (settings.storage_endpoint, settings.storage_public_endpoint, *environment_endpoints()):
        if endpoint is not None:
            _check_endpoint(endpoint)
    endpoint = settings.storage_endpoint or next(iter(environment_endpoints()), None)
    try:
        return S3Storage(bucket, prefix, endpoint=endpoint, public_endpoint=settings.storage_public_endpoint)
    except OSError as error:
        raise StorageNotUsable(f"s3://{bucket} cannot be opened: {error.strerror}") from error


def _check_endpoint(endpoint: str) -> None:
    """Raise StorageNotUsable unless it is the URL of a service; the library would end the process."""
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url = False
    if not is_url or not _ENDPOINT.fullmatch(endpoint):
        raise StorageNotUsable(
            f"{_without_user(endpoint)} is not the address of an S3 service: use https://HOST or http://HOST:PORT"
        )


def local_folder(settings: Settings) -> Path | None:
    """Return the folder that `storage_url` names, if it names one."""
    address = settings.storage_url or ""
    return Path(unquote(urlsplit(address).path)) if address.startswith("file:///") else None


def media_origin(settings: Settings) -> str | None:
    """Return the origin of presigned URLs for a Content-Security-Policy; None if clients get none."""
    if settings.storage_reads != "presigned" or not (settings.storage_url or "").startswith("s3:"):
        return None
    endpoint = (
        settings.storage_public_endpoint or settings.storage_endpoint or next(iter(environment_endpoints()), None)
    )
    if endpoint is None:
        return "https://*.amazonaws.com"
    _check_endpoint(endpoint)
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc}"


def environment_endpoints() -> list[str]:
    """Return the addresses of the S3 service in the environment, the most specific first."""
    return [os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)]


def check(settings: Settings, storage: ObjectStorage) -> None:
    """Write, read and delete a small object if there is an address in the settings; raises StorageNotUsable. Blocks."""
    if settings.storage_url is None:
        return
    separator = "-" if isinstance(storage, LocalStorage) else "/"  # leave no empty folder
    key, content = f"{PROBE}{separator}{secrets.token_hex(8)}", b"probe"
    hint = (
        "check storage_url, storage_endpoint, the credentials and their permissions (put, get, delete and list objects)"
    )
    if isinstance(storage, LocalStorage):
        hint = "check storage_url and the permissions of the folder"
    try:
        if isinstance(storage, LocalStorage):
            make_private_folder(storage.local_path(""))
        storage.write(key, content)
        is_conditional = _is_refused(storage, key)
        is_intact = storage.get(key) == content
        failed = storage.delete([key])
        if not failed:
            StoredFile(storage, key).exists()  # without the permission to list, a missing object is a refused one
    except OSError as error:
        raise StorageNotUsable(
            f"the storage {storage.address} cannot be used: {error.strerror or error}; {hint}"
        ) from error
    if failed:
        raise StorageNotUsable(
            f"the storage {storage.address} does not let this server delete objects: {failed[key].strerror}"
        )
    if not is_conditional:
        raise StorageNotUsable(
            f"the storage {storage.address} ignores the condition If-None-Match of PUT, which this server needs"
        )
    if not is_intact:
        raise StorageNotUsable(f"the storage {storage.address} does not return what was written")


def _is_refused(storage: ObjectStorage, key: str) -> bool:
    """Return whether another object of the same key is refused."""
    try:
        storage.write(key, b"other")
    except FileExistsError:
        return True
    return False
