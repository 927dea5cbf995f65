"""`invokeclone user`: accounts on a temporary root."""

import io
from pathlib import Path
from typing import Any

import pytest

from invokeclone.cli.main import main
from invokeclone.users import passwords


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


def test_a_life_of_an_account(user: Any, tmp_path: Path) -> None:
    (tmp_path / "invokeai.yaml").write_text("multiuser: true\n")
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


@pytest.mark.parametrize(
    ("arguments", "typed", "complaint"),
    [
        (["add", "admin@example.com"], "x\n", "exists already"),
        (["add", "nonsense"], "x\n", "not an e-mail address"),
        (["add", "a@example.com"], "\n", "must not be empty"),
        (["add", "a@example.com"], "", "must not be empty"),
        (["passwd", "nobody@example.com"], "x\n", "no user has the address"),
        (["passwd", "admin@example.com"], "\n", "must not be empty"),
        (["delete", "admin@example.com"], "", "last administrator"),
        (["demote", "admin@example.com"], "", "last administrator"),
        (["disable", "admin@example.com"], "", "last administrator"),
        (["delete", "system@system.invokeai"], "", "system user"),
    ],
)
def test_refusals_are_one_line(user: Any, arguments: list[str], typed: str, complaint: str) -> None:
    user("add", "admin@example.com", "--admin")
    status, out, complaints = user(*arguments, typed=typed)
    assert (status, out) == (2, "")
    assert complaint in complaints
    assert len(complaints.splitlines()) == 1


def test_a_hint_says_that_nobody_signs_in_yet(user: Any) -> None:
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
    assert "different" in capsys.readouterr().err
    assert main(add) == 0
