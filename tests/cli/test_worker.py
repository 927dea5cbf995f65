"""`invokeclone worker`: tokens on a temporary root, and what is refused before anything is started."""

from pathlib import Path
from typing import Any

import pytest

from invokeclone.cli.main import main


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `invokeclone worker …`; return the exit code, what it wrote and its complaints."""
    monkeypatch.delenv("INVOKECLONE_WORKER_TOKEN", raising=False)

    def act(*arguments: str) -> tuple[int, str, str]:
        status = main(["worker", *arguments, "--root", str(tmp_path)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return act


def test_life_of_a_token(worker: Any) -> None:
    worker("token", "list")
    assert worker("token", "list") == (0, "", "")
    status, text, hint = worker("token", "create", "render box", "--days", "0")
    assert (status, "not shown again" in hint) == (0, True)
    worker("token", "create", "other")
    _, listed, _ = worker("token", "list")
    first, second = listed.splitlines()
    assert first.endswith("render box")
    assert ("expires never" in first, "expires never" in second) == (True, False)
    assert text.strip() not in listed
    assert text[:10] in first
    assert worker("token", "revoke", text[:10]) == (0, "revoked render box\n", "")
    assert worker("token", "list")[1].splitlines() == [second]
    status, _, complaint = worker("token", "revoke", text[:10])
    assert (status, "not exactly one worker token" in complaint) == (2, True)


def test_the_root_may_precede_the_action(worker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker("token", "create", "box")
    assert main(["worker", "--root", str(tmp_path), "token", "list"]) == 0
    assert capsys.readouterr().out.endswith("box\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--join URL"),
        (["--join", "http://box"], "INVOKECLONE_WORKER_TOKEN"),
        (["--join", "box:9090", "--token", "t"], "not the address of a server"),
        (["--join", "http://box", "--token", "t", "--device", "gpu"], "not a device"),
        (["--join", "http://box", "--token", "t", "--name", "a/b"], "not a name of a machine"),
    ],
)
def test_wrong_use_is_one_line(worker: Any, arguments: list[str], complaint: str) -> None:
    status, _, complaints = worker(*arguments)
    assert status == 2
    assert complaint in complaints
    assert complaints.count("\n") == 1


def test_a_token_may_end_with_a_line_break(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a secret has that was written with an editor."""
    tokens: list[str] = []

    class Joined(Exception):
        pass

    def join(_address: object, token: str, **_options: object) -> None:
        tokens.append(token)
        raise Joined

    monkeypatch.setattr("invokeclone.cli.worker.Agent", join)
    monkeypatch.setenv("INVOKECLONE_WORKER_TOKEN", "icw_token\n")
    with pytest.raises(Joined):
        worker("--join", "http://box")
    assert tokens == ["icw_token"]
