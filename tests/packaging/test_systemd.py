"""The systemd unit: its command is one of ours, and systemd reads it where there is a systemd."""

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from invokeclone.cli.main import parser

UNIT = Path(__file__).parents[2] / "configs" / "invokeclone.service"


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    return unit["Service"]


def test_unit_runs_the_serve_command_with_the_state_directory_as_root() -> None:
    program, *arguments = shlex.split(service()["ExecStart"])
    assert Path(program).name == "invokeclone"
    parsed = parser().parse_args(arguments)
    assert parsed.command == "serve"
    assert parsed.root == Path("/var/lib") / service()["StateDirectory"]


def test_stopping_leaves_the_server_time_for_its_workers() -> None:
    from invokeclone.cli.serve import GRACE_SECONDS

    assert service()["KillMode"] == "mixed"
    assert int(service()["TimeoutStopSec"]) > GRACE_SECONDS + 3 * 5  # connections; a worker's three steps of patience


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = shlex.split(service()["ExecStart"])[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(f"ExecStart={program}", f"ExecStart={sys.executable}"))
    ran = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert UNIT.name not in ran.stderr
