"""Whether a process runs, by its number."""

import os
import subprocess
import sys

import pytest

from invokeclone.kit.processes import runs


def test_this_process_runs_and_an_ended_one_does_not() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert runs(str(os.getpid()))
    assert not runs(str(ended.pid))


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 30])
def test_what_is_no_number_of_a_process_does_not_run(text: str) -> None:
    assert not runs(text)
