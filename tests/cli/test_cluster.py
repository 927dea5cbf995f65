"""`invokeclone cluster ray`: what is refused before Ray is started."""

import sys
from pathlib import Path

import pytest

from invokeclone.cli.main import main
from invokeclone.cluster.host import TOKEN_VARIABLE

JOIN = ["--join", "http://box:9090"]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (JOIN, 2, TOKEN_VARIABLE),
        (["--join", "box:9090", "--token-file", "TOKEN"], 2, "not the address of a server"),
        ([*JOIN, "--token-file", "missing"], 2, "cannot read the token file missing"),
        ([*JOIN, "--token-file", "EMPTY"], 2, "give the worker's token"),
        ([*JOIN, "--token-file", "TOKEN", "--address", "ray://head:10001"], 1, "Ray Client, which is not supported"),
        ([*JOIN, "--token-file", "TOKEN"], 1, "install the extra, invokeclone[ray]"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str],
    status: int,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it was not installed
    (tmp_path / "TOKEN").write_text("icw_a\n")
    (tmp_path / "EMPTY").write_text("\n")
    named = [str(tmp_path / word) if word in ("TOKEN", "EMPTY") else word for word in arguments]
    assert main(["cluster", "ray", *named]) == status
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
