"""Files on the server's machine that a user names by path: access rules and reading.

The rules, for every path that comes from a client (a node's field, a batch's value, a workflow):

* any user may read files in the folders of the setting `allowed_file_folders`, with symbolic links resolved;
* an administrator may read any other file, as may the user of a server without accounts that listens on this machine
  only: there the caller is the person at the machine, and InvokeAI's users name files by absolute paths;
* a server without accounts on a network is open to all callers, so there only the allowed folders are readable.

The refusal does not reveal whether the file exists. Only regular files (no device, pipe or folder) are read, as text
and up to a size limit.
"""

import ipaddress
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from invokeclone.kit.config.limits import MIB
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import Forbidden, NotFound, TooLarge, Unprocessable


class FileRefused(Forbidden):
    """The user may not read this file, whether or not it exists."""


class FileNotReadable(NotFound):
    """The file does not exist, or is not readable as text."""


def may_name_any_file(settings: Settings, *, is_admin: bool) -> bool:
    """Return whether a user may read files outside the allowed folders.

    Without accounts every user is an administrator.
    """
    return is_admin and (settings.multiuser or is_local(settings.host))


def is_local(host: str) -> bool:
    """Return whether a server that listens on `host` is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def resolve(settings: Settings, text: str, *, is_admin: bool) -> Path:
    """Return the real path of the file that a user names, absolute or relative to an allowed folder.

    Blocking. Raises FileRefused for a file that the user may not read, Unprocessable for an invalid path.
    """
    if not _is_path(text):
        raise Unprocessable(f"not a file path: {text!r}")
    free = may_name_any_file(settings, is_admin=is_admin)
    folders = [_real(folder) for folder in settings.allowed_file_paths]
    named = Path(text).expanduser() if free and text.startswith("~") else Path(text)
    candidates = [_real(folder / named) for folder in folders]  # an absolute path stays as it is
    inside = [path for path in candidates if any(path.is_relative_to(folder) for folder in folders)]
    if not free and not inside:
        raise FileRefused(
            f"{text} is not in a folder whose files may be read ({', '.join(map(str, settings.allowed_file_folders))});"
            " move it there, or have an administrator add its folder to allowed_file_folders"
        )
    if free:
        inside = [*inside, _real(named)]
    return next((path for path in inside if os.path.lexists(path)), inside[0])


@contextmanager
def open_text(settings: Settings, text: str, *, is_admin: bool) -> Iterator[TextIO]:
    """Open the UTF-8 text file that a user names.

    Blocking. Raises FileRefused, FileNotReadable (missing, or not a regular file), TooLarge, Unprocessable.
    """
    path = resolve(settings, text, is_admin=is_admin)
    missing = FileNotReadable(f"file {text} does not exist or is not readable")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise missing from error
    status = os.fstat(descriptor)
    max_mib = settings.limits.text_file_mib
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_mib * MIB:
        os.close(descriptor)
        too_large = TooLarge(
            f"{text} has {status.st_size} bytes, more than {max_mib} MiB (setting limits.text_file_mib)"
        )
        raise too_large if stat.S_ISREG(status.st_mode) else missing
    with os.fdopen(descriptor, encoding="utf-8-sig") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise Unprocessable(f"{text} is not a text file in UTF-8") from error


def _is_path(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return bool(text.strip()) and "\0" not in text


def _real(path: Path) -> Path:
    """Return a path with links resolved; a path with a link loop is returned unchanged."""
    return Path(os.path.realpath(path))
