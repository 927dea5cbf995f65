"""Sanitizing of file names and paths sent by servers."""

import re
from email.message import Message
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from invokeclone.downloads.errors import DownloadFailed

MAX_BYTES = 180
"""Longest file name in bytes; leaves room for the suffixes of partial files."""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


def file_name(disposition: str | None, url: str) -> str:
    """Return a safe name for the file at `url`, from Content-Disposition or else from the URL path."""
    disposition_name = _parse_disposition(disposition) if disposition else None
    return safe_name(disposition_name or unquote(PurePosixPath(urlsplit(url).path).name) or "download")


def safe_name(text: str) -> str:
    """Return the last path component of `text` as a safe file name of at most MAX_BYTES, keeping its extension."""
    last = text.encode("utf-8", "replace").decode().replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = _UNSAFE.sub("_", last).strip(" .")
    if not name or _DEVICES.match(name):
        name = f"download_{name}".rstrip("_")
    while len(name.encode()) > MAX_BYTES:
        stem, dot, ending = name.rpartition(".")
        short = stem and len(ending.encode()) < MAX_BYTES // 2
        name = f"{stem[:-1]}{dot}{ending}" if short else name[:-1]
    return name.rstrip(" .")


def safe_path(text: str) -> Path:
    """Return a repository path as a relative path. Raises DownloadFailed if it is unsafe or leaves the repository."""
    parts = PurePosixPath(text).parts
    if not parts or text.startswith("/") or any(part in {"..", "."} or _UNSAFE.search(part) for part in parts):
        raise DownloadFailed(f"the source contains an unsafe file path: {text!r}")
    return Path(*parts)


def _parse_disposition(header: str) -> str | None:
    """Return the `filename` or `filename*` of a Content-Disposition header."""
    message = Message()
    message["Content-Disposition"] = re.sub(r"[\r\n]", " ", header)
    return message.get_filename()
