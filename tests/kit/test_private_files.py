"""Who may read the files: folders and files that are new, and those of an existing root."""

import asyncio
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from invokeclone.kit.files.storage import create, make_folder, make_private_folder, restrict, write_file
from invokeclone.kit.sql.sqlite_database import SqliteDatabase


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_files_and_folders_inherit_the_permissions_of_their_parent(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "outputs")
    write_file(tmp_path / "outputs" / "images" / "2026" / "a.png", b"x")
    create(tmp_path / "outputs" / "images" / "b.mp4").close()
    paths = [tmp_path / "outputs", *(tmp_path / "outputs").rglob("*")]
    assert {mode(path) for path in paths if path.is_dir()} == {0o700}
    assert {mode(path) for path in paths if path.is_file()} == {0o600}
    assert len(paths) == 5


def test_a_shared_folder_stays_shared(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    make_private_folder(shared)
    write_file(shared / "models" / "a.webp", b"x")
    assert [mode(path) for path in (shared, shared / "models", shared / "models" / "a.webp")] == [0o755, 0o755, 0o644]
    write_file(shared / "secret", b"x", 0o600)
    assert mode(shared / "secret") == 0o600


def test_a_folder_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "a" / "b")


def test_restrict_sets_owner_only_permissions(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    assert restrict(file) is False
    file.touch()
    file.chmod(0o664)
    assert (restrict(file), mode(file), restrict(file)) == (True, 0o600, False)


async def test_the_database_is_readable_by_its_owner_only(tmp_path: Path, logged: list[logging.LogRecord]) -> None:
    path = tmp_path / "databases" / "invokeai.db"
    database = SqliteDatabase(path)
    await database.migrate()
    async with database.write() as connection:
        await connection.exec_driver_sql("CREATE TABLE t (x)")
        modes = {file.name: mode(file) for file in path.parent.iterdir()}
    await database.close()
    assert mode(path.parent) == 0o700
    assert set(modes) >= {"invokeai.db", "invokeai.db-wal"}
    assert set(modes.values()) == {0o600}
    assert [record.getMessage() for record in logged if record.levelno >= logging.WARNING] == []


async def test_an_existing_database_is_restricted_but_not_its_folder(
    tmp_path: Path, migrated: Path, logged: list[logging.LogRecord]
) -> None:
    path = tmp_path / "databases" / "invokeai.db"
    path.parent.mkdir(mode=0o755)
    await asyncio.to_thread(path.write_bytes, migrated.read_bytes())
    for _ in range(2):
        database = SqliteDatabase(path)
        await database.migrate()
        await database.close()
    assert (mode(path), mode(path.parent)) == (0o600, 0o755)
    lines = [record.getMessage() for record in logged if record.levelno == logging.WARNING]
    assert len(lines) == 1
    assert str(path) in lines[0]
