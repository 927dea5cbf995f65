"""`invokeclone user`: accounts and API keys on a temporary root."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from invokeclone.cli.main import main
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.users import keys, passwords


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "ROUNDS", 1)
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    passwords._hasher.cache_clear()


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `invokeclone user …` with a password piped in; return the exit code, what it wrote and its complaints."""

    def act(*arguments: str, typed: str = "secret\n") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        piped = ["--password-stdin"] if arguments[0] in ("add", "passwd") else []
        status = main(["user", *arguments, *piped, "--root", str(tmp_path)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return act


def test_account_lifecycle(user: Any, tmp_path: Path) -> None:
    (tmp_path / "invokeai.yaml").write_text("multiuser: true\n")
    assert user("list") == (0, "", f"invokeclone: {tmp_path / 'databases' / 'invokeai.db'} is a new database\n")
    assert user("list") == (0, "", "")
    assert user("add", "admin@example.com", "--admin", "--name", "The Admin") == (0, "added admin@example.com\n", "")
    assert user("add", "bob@example.com")[0] == 0
    assert user("promote", "bob@example.com") == (0, "bob@example.com is an administrator\n", "")
    assert user("disable", "bob@example.com")[0] == 0
    status, listed, _ = user("list")
    assert status == 0
    assert listed.splitlines() == [
        "bob@example.com    admin  signed in never  disabled",
        "admin@example.com  admin  signed in never    The Admin",
    ]
    assert user("passwd", "bob@example.com", typed="another\r\n")[0] == 0
    assert user("enable", "bob@example.com")[0] == 0
    assert user("demote", "bob@example.com")[0] == 0
    assert user("delete", "bob@example.com")[0] == 0
    assert "bob" not in user("list")[1]


def test_a_new_database_is_reported_by_commands_that_fail(user: Any, tmp_path: Path) -> None:
    """Its root may be wrong: "no such user" is then the consequence."""
    status, out, complaints = user("passwd", "bob@example.com")
    assert (status, out) == (2, "")
    file = tmp_path / "databases" / "invokeai.db"
    assert complaints.splitlines()[0] == f"invokeclone: {file} is a new database"
    assert "no user has the email address" in complaints.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "typed", "complaint"),
    [
        (["add", "admin@example.com"], "x\n", "exists already"),
        (["add", "nonsense"], "x\n", "not a valid email address"),
        (["add", "a@example.com"], "\n", "must not be empty"),
        (["add", "a@example.com"], "", "must not be empty"),
        (["passwd", "nobody@example.com"], "x\n", "no user has the email address"),
        (["passwd", "admin@example.com"], "\n", "must not be empty"),
        (["delete", "admin@example.com"], "", "last administrator"),
        (["demote", "admin@example.com"], "", "last administrator"),
        (["disable", "admin@example.com"], "", "last administrator"),
        (["delete", "system@system.invokeai"], "", "system user"),
    ],
)
def test_refused_commands_print_one_line(user: Any, arguments: list[str], typed: str, complaint: str) -> None:
    user("add", "admin@example.com", "--admin")
    status, out, complaints = user(*arguments, typed=typed)
    assert (status, out) == (2, "")
    assert complaint in complaints
    assert len(complaints.splitlines()) == 1


def test_add_hints_that_multiuser_is_off(user: Any) -> None:
    assert "multiuser: true" in user("add", "a@example.com")[2]


def test_strict_passwords(user: Any, tmp_path: Path) -> None:
    (tmp_path / "invokeai.yaml").write_text("strict_password_checking: true\n")
    assert user("add", "a@example.com", typed="simple\n")[0] == 2
    assert user("add", "a@example.com", typed="Abcdefg1\n")[0] == 0


def test_a_password_is_typed_twice_at_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter(["one", "two", "same", "same"])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(typed))
    add = ["user", "add", "a@example.com", "--root", str(tmp_path)]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(add) == 2
    assert "--password-stdin" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Terminal())
    assert main(add) == 2
    assert "do not match" in capsys.readouterr().err
    assert main(add) == 0


def verify_key(root: Path, key: str) -> str | None:
    """Return whose key it is, as a server that runs meanwhile would find it."""

    async def ask() -> str | None:
        database = SqliteDatabase(root / "databases" / "invokeai.db")
        try:
            holder = await keys.verify(database, key)
        finally:
            await database.close()
        return holder.email if holder else None

    return asyncio.run(ask())


def test_key_lifecycle(user: Any, tmp_path: Path) -> None:
    assert user("key", "list")[:2] == (0, "")
    status, key, stderr = user("key", "add", "Open WebUI")
    assert status == 0
    assert keys.is_key(key.removesuffix("\n")), "nothing but the key, for scripts"
    assert "not shown again" in stderr
    assert "from now on" in stderr
    key = key.strip()
    assert verify_key(tmp_path, key) == "system@system.invokeai"
    assert "from now on" not in user("key", "add", "another")[2]
    status, listed, _ = user("key", "list")
    assert status == 0
    first, second = listed.splitlines()
    assert first.split()[1:3] == [key[:10], "system@system.invokeai"]
    assert first.endswith("Open WebUI")
    assert "used never" in second
    assert "used 20" in first
    assert key not in listed
    status, out, stderr = user("key", "revoke", key[:10])
    assert (status, out, stderr) == (0, "revoked Open WebUI\n", "")
    assert verify_key(tmp_path, key) is None
    status, out, stderr = user("key", "revoke", second.split()[0])
    assert (status, out) == (0, "revoked another\n")
    assert "last key" in stderr
    assert user("key", "list")[:2] == (0, "")


def test_keys_belong_to_accounts_in_multiuser_mode(user: Any, tmp_path: Path) -> None:
    (tmp_path / "invokeai.yaml").write_text("multiuser: true\n")
    user("add", "admin@example.com", "--admin")
    user("add", "bob@example.com")
    status, key, stderr = user("key", "add", "A1111", "--email", "bob@example.com")
    assert (status, len(stderr.splitlines())) == (0, 1)
    assert verify_key(tmp_path, key.strip()) == "bob@example.com"
    user("key", "add", "x", "--email", "admin@example.com")
    assert len(user("key", "list")[1].splitlines()) == 2
    assert "A1111" in user("key", "list", "--email", "bob@example.com")[1]
    assert "A1111" not in user("key", "list", "--email", "admin@example.com")[1]
    user("disable", "bob@example.com")
    assert verify_key(tmp_path, key.strip()) is None
    user("delete", "bob@example.com")
    assert len(user("key", "list")[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["add", "x"], "name the owner of the key"),
        (["add", "x", "--email", "nobody@example.com"], "no user has the email address"),
        (["add", "x", "--email", "system@system.invokeai"], "system user"),
        (["add", "", "--email", "admin@example.com"], "name of an API key"),
        (["list", "--email", "nobody@example.com"], "no user has the email address"),
        (["revoke", "ick_abcdef"], "no such key"),
        (["revoke", ""], "no such key"),
    ],
)
def test_refused_key_commands_print_one_line(user: Any, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "invokeai.yaml").write_text("multiuser: true\n")
    user("add", "admin@example.com", "--admin")
    status, out, complaints = user("key", *arguments)
    assert (status, out) == (2, "")
    assert complaint in complaints
    assert len(complaints.splitlines()) == 1
    assert user("key", "list")[1] == ""


def test_quotas_of_a_user_are_shown_and_set(user: Any, tmp_path: Path) -> None:
    (tmp_path / "invokeai.yaml").write_text("multiuser: true\nmax_pending_items_per_user: 9\n")
    user("add", "bob@example.com")
    assert user("quota", "bob@example.com", "--images", "100") == (
        0,
        "pending items   0 used, at most 9  (default)\nimages per day  0 used, at most 100\n",
        "",
    )
    assert user("quota", "bob@example.com", "--images", "default", "--pending", "none")[1] == (
        "pending items   0 used, no limit\nimages per day  0 used, no limit  (default)\n"
    )
    assert "name the user" in user("quota")[2]
    with pytest.raises(SystemExit):
        user("quota", "bob@example.com", "--pending", "-1")


def test_quotas_of_the_single_user_need_no_address(user: Any) -> None:
    assert user("quota", "--pending", "0")[1].startswith("pending items   0 used, at most 0\n")
