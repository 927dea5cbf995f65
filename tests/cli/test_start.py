"""Starts that fail: one line with what to do, a status that is not 0, and not a byte changed."""

import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from invokeclone.cli.main import main
from invokeclone.kit.files.root_lock import RootLock
from invokeclone.kit.sql import database_file, migrations
from tests.server_process import free_port

COMMANDS = {
    "serve": ["serve", "--port", "29590"],
    "models": ["models", "list"],
    "user": ["user", "list"],
    "db": ["db", "upgrade"],
    "generate": ["generate", "x", "--out", "never-written.png"],
}


def listing(root: Path) -> dict[str, str]:
    """Return every file under `root` with a digest of what is in it."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
    }


def execute(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def invokeai(file: Path) -> None:
    execute(
        file,
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE images (image_name TEXT PRIMARY KEY)",
        "CREATE TABLE migrations (version INTEGER PRIMARY KEY, migrated_at TEXT)",
        "INSERT INTO migrations VALUES (33, 'now')",
    )


def invokeai_spoiled(file: Path) -> None:
    """Write what an earlier version of this server made of InvokeAI's database: it added two tables."""
    invokeai(file)
    execute(file, "CREATE TABLE alembic_version (version_num TEXT)", "CREATE TABLE app_state (key TEXT PRIMARY KEY)")


def invokeai_open(file: Path) -> None:
    """Write a database whose newest pages are in the WAL, as while InvokeAI runs or after it was killed."""
    other = file.with_name("other.db")
    invokeai(other)
    connection = sqlite3.connect(other, isolation_level=None)
    connection.execute("INSERT INTO images VALUES ('a')")
    for end in ("", "-wal"):
        shutil.copyfile(f"{other}{end}", f"{file}{end}")
    connection.close()
    other.unlink()


def another_program(file: Path) -> None:
    execute(file, "CREATE TABLE notes (text TEXT)")


def newer(file: Path) -> None:
    migrations.upgrade(file)
    execute(file, "UPDATE alembic_version SET version_num = '9999'")


def newer_in_wal(file: Path) -> None:
    """Write a newer database whose revision is only in the WAL."""
    other = file.with_name("other.db")
    migrations.upgrade(other)
    connection = sqlite3.connect(other, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for end in ("", "-wal"):
        shutil.copyfile(f"{other}{end}", f"{file}{end}")
    connection.close()
    other.unlink()


def no_database(file: Path) -> None:
    file.write_bytes(b"This is a text file and no database at all. " * 100)


def cut_off(file: Path) -> None:
    migrations.upgrade(file)
    file.write_bytes(file.read_bytes()[:20_000])


def overwritten(file: Path) -> None:
    """Write a database whose schema has been overwritten by something."""
    migrations.upgrade(file)
    data = bytearray(file.read_bytes())
    data[100:4096] = b"\xff" * 3996
    file.write_bytes(bytes(data))


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "InvokeAI's": (invokeai, "InvokeAI's own"),
    "InvokeAI's, spoiled": (invokeai_spoiled, "InvokeAI's own"),
    "InvokeAI's, in use": (invokeai_open, "InvokeAI's own"),
    "another program's": (another_program, "another program"),
    "newer": (newer, "newer version"),
    "no database": (no_database, "damaged"),
    "cut off": (cut_off, "damaged"),
    "overwritten": (overwritten, "damaged"),
}


def starts(root: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that has to fail; return its one line."""
    assert main([*command, "--root", str(root)]) in (1, 2)
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line]
    assert len(lines) == 1, output.err
    assert output.out == ""
    return lines[0]


@pytest.mark.parametrize("kind", BAD)
def test_a_foreign_database_is_refused_and_unchanged(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = BAD[kind]
    file = tmp_path / "root" / "databases" / "invokeai.db"
    file.parent.mkdir(parents=True)
    make(file)
    before = listing(tmp_path)
    commands = COMMANDS if kind == "InvokeAI's" else {"serve": COMMANDS["serve"]}
    for command in commands.values():
        assert words in starts(tmp_path / "root", command, capsys)
        assert listing(tmp_path) == before


def test_a_newer_revision_in_the_wal_is_detected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "root" / "databases" / "invokeai.db"
    file.parent.mkdir(parents=True)
    newer_in_wal(file)
    assert "newer version" in starts(tmp_path / "root", COMMANDS["serve"], capsys)


def test_valid_database_files_pass_the_check(tmp_path: Path) -> None:
    file = tmp_path / "invokeai.db"
    revisions = migrations.revisions()
    database_file.check(file, revisions)
    file.touch()
    database_file.check(file, revisions)
    execute(file, "PRAGMA journal_mode = WAL", "CREATE TABLE x (y)", "DROP TABLE x")
    database_file.check(file, revisions)
    migrations.upgrade(file)
    database_file.check(file, revisions)
    assert revisions[-1] == migrations.head() == migrations.current(file)


def test_a_root_in_use_by_a_server_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    assert main(["db", "upgrade", "--root", str(root)]) == 0
    lock = RootLock(root)
    lock.acquire()
    lock.write("http://127.0.0.1:9090")
    capsys.readouterr()
    before = listing(root)
    line = starts(root, COMMANDS["serve"], capsys)
    assert "http://127.0.0.1:9090" in line
    assert listing(root) == before
    for command in (COMMANDS["models"], COMMANDS["user"], COMMANDS["db"]):
        assert main([*command, "--root", str(root)]) == 0, "works beside a server"
    lock.release()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unwritable_root_is_reported(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = starts(Path("/proc/no-root-here"), COMMANDS[name], capsys)
    assert "/proc/no-root-here" in line
    assert "--root" in line
    assert list(tmp_path.iterdir()) == []


def test_a_locked_database_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invokeclone.kit.sql.sqlite_database.BUSY_TIMEOUT_MS", 10)
    assert main(["db", "upgrade", "--root", str(tmp_path)]) == 0
    capsys.readouterr()
    with contextlib.closing(sqlite3.connect(tmp_path / "databases" / "invokeai.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "locked" in starts(tmp_path, COMMANDS["serve"], capsys)


@pytest.mark.timeout(60)
def test_a_startup_write_error_prints_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is found to be wrong only while the server starts."""

    async def full(_resources: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("invokeclone.presets.service.start", full)
    assert main(["serve", "--root", str(tmp_path), "--port", str(free_port())]) == 1
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    assert "disk is full; grant permission, free space" in printed
