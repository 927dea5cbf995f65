"""Names of files as the other side gives them, made into names that are safe to write here."""

import re
from email.message import Message
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from invokeclone.downloads.errors import DownloadFailed

MAX_BYTES = 180
"""Bytes of a name that leave room for the endings of unfinished files."""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


def file_name(disposition: str | None, url: str) -> str:
    """Return the name for the file at `url`: what Content-Disposition says, else the last part of the address."""
    disposition_name = _parse_disposition(disposition) if disposition else None
    return safe_name(disposition_name or unquote(PurePosixPath(urlsplit(url).path).name) or "download")


def safe_name(text: str) -> str:
    """Return the last part of `text` as a plain, visible and not too long file name; its ending is kept."""
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
    """Return a path inside a repository as a relative one; raises DownloadFailed for one that leads anywhere else."""
    parts = PurePosixPath(text).parts
    if not parts or text.startswith("/") or any(part in {"..", "."} or _UNSAFE.search(part) for part in parts):
        raise DownloadFailed(f"the source names a file that is not safe to write: {text!r}")
    return Path(*parts)


def _parse_disposition(header: str) -> str | None:
    """Return the file name of a Content-Disposition header, in either of its forms."""
    message = Message()
    message["Content-Disposition"] = re.sub(r"[\r\n]", " ", header)
    return message.get_filename()
