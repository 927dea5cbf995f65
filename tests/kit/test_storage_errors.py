"""What error numbers of disks and databases become."""

import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from invokeclone.kit.files.storage_errors import (
    DatabaseBusy,
    NameTooLong,
    StorageFull,
    StorageReadOnly,
    startup_line,
    to_storage_error,
)


def sqlite_error(text: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageFull, 507),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StorageFull, 507),
        (OSError(errno.EROFS, "Read-only file system"), StorageReadOnly, 507),
        (PermissionError(errno.EACCES, "Permission denied"), StorageReadOnly, 507),
        (OSError(errno.ENAMETOOLONG, "File name too long"), NameTooLong, 400),
        (sqlite3.OperationalError("database or disk is full"), StorageFull, 507),
        (sqlite3.OperationalError("attempt to write a readonly database"), StorageReadOnly, 507),
        (sqlite3.OperationalError("database is locked"), DatabaseBusy, 503),
        (sqlite_error("x", sqlite3.SQLITE_FULL), StorageFull, 507),
        (sqlite_error("x", sqlite3.SQLITE_BUSY | 2 << 8), DatabaseBusy, 503),
        (OperationalError("COMMIT", None, sqlite3.OperationalError("database is locked")), DatabaseBusy, 503),
    ],
)
def test_storage_errors_are_converted(error: Exception, kind: type[Exception], status: int) -> None:
    storage_error = to_storage_error(error)
    assert type(storage_error) is kind
    assert storage_error is not None
    assert storage_error.status == status
    wrapped = ValueError("could not save")
    wrapped.__cause__ = error
    assert type(to_storage_error(wrapped)) is kind


@pytest.mark.parametrize(
    "error",
    [
        ValueError("locked"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(),
        sqlite3.OperationalError("no such table: x"),
    ],
)
def test_other_errors_are_not_converted(error: Exception) -> None:
    assert to_storage_error(error) is None


def test_the_systems_own_error_for_a_long_name(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / ("x" * 5000)).write_bytes(b"")
    assert isinstance(to_storage_error(caught.value), NameTooLong)


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("/data/images/x.png", "free space, or choose another --root"),
        ("s3://bucket/prefix/images", "check storage_url, storage_endpoint, the credentials and their permissions"),
    ],
)
def test_the_line_of_a_command_fits_the_storage(file: str, hint: str) -> None:
    line = startup_line(OSError(errno.EIO, "no answer", file))
    assert line is not None
    assert line.startswith(f"cannot use the files at {file}: no answer; ")
    assert line.endswith(hint)
