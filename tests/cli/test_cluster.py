"""`invokeclone cluster ray`: what is refused before Ray is started, and errors of Ray."""

import sys
from pathlib import Path

import pytest

from invokeclone.cli.main import main
from invokeclone.cluster import ray_engine
from invokeclone.cluster.host import TOKEN_VARIABLE
from tests.cluster.fake_ray import FakeRay, RayError

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


class TestErrorsOfRay:
    """A cluster that cannot be reached, or breaks off, is one line that says what to do."""

    @pytest.fixture
    def ray(self, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
        monkeypatch.setenv(TOKEN_VARIABLE, "icw_a")
        monkeypatch.setattr(ray_engine, "_answers_without_token", lambda _address: False)
        return FakeRay(monkeypatch)

    @pytest.mark.parametrize(
        ("function", "error", "complaint"),
        [
            (
                "init",
                Exception("The node timed out\nduring startup."),
                "cannot connect to the cluster auto: during startup",
            ),
            ("init", FileNotFoundError("no /tmp/ray"), "cannot connect to the cluster auto: no /tmp/ray"),
            ("get_runtime_context", RayError("GCS is down."), "does not answer: GCS is down. Check that its head runs"),
            ("nodes", RayError("Failed to reach\nthe GCS."), "does not answer: the GCS. Check that its head runs"),
            ("nodes", ConnectionError("refused"), "does not answer: refused. Check that its head runs"),
            (None, None, "worker 1 is refused: no such server"),
            ("kill", ValueError("no actor"), "is refused: no such server"),
            ("stop", RuntimeError("not connected"), "is refused: no such server"),
            ("shutdown", RuntimeError("not connected"), "is refused: no such server"),
        ],
    )
    def test_it_is_one_line(
        self,
        ray: FakeRay,
        function: str | None,
        error: Exception | None,
        complaint: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        if function is not None and error is not None:
            ray.failures[function] = error
        arguments = ["cluster", "ray", *JOIN, "--cpu"]
        assert main(arguments) == 1
        line = capsys.readouterr().err
        assert complaint in line
        assert line.count("\n") == 1
        assert "shutdown" in ray.calls

    def test_the_probe_that_cannot_be_started(
        self, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(_address: str) -> bool:
            raise OSError("no memory")

        monkeypatch.setattr(ray_engine, "_answers_without_token", fail)
        assert main(["cluster", "ray", *JOIN, "--cpu"]) == 1
        assert "does not answer: no memory" in capsys.readouterr().err
