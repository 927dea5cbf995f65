"""The command line: mistakes in one line with exit code 2, ports, and the commands on a temporary root."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from invokeclone.cli.main import main
from invokeclone.cli.serve import listen

WRONG: dict[str, list[str]] = {
    "no command": [],
    "unknown command": ["paint"],
    "size that is no multiple of 8": ["generate", "x", "--out", "o.png", "--width", "100"],
    "too small": ["generate", "x", "--out", "o.png", "--height", "32"],
    "no number": ["generate", "x", "--out", "o.png", "--steps", "many"],
    "no steps": ["generate", "x", "--out", "o.png", "--steps", "0"],
    "NaN": ["generate", "x", "--out", "o.png", "--cfg", "nan"],
    "negative seed": ["generate", "x", "--out", "o.png", "--seed", "-1"],
    "no out": ["generate", "x"],
    "unknown scheduler": ["generate", "x", "--out", "o.png", "--scheduler", "fast"],
    "unknown format": ["generate", "x", "--out", "o.txt"],
    "missing folder": ["generate", "x", "--out", "/no/such/folder/o.png"],
    "unknown model": ["generate", "x", "--out", "o.png", "--model", "nope"],
    "unknown LoRA": ["generate", "x", "--out", "o.png", "--lora", "nope:0.5"],
    "too heavy a LoRA": ["generate", "x", "--out", "o.png", "--lora", "nope:50"],
    "unknown refiner": ["generate", "x", "--out", "o.png", "--refiner", "nope"],
    "unknown IP-Adapter": ["generate", "x", "--out", "o.png", "--reference", "nope:o.png"],
    "a control without a model": ["generate", "x", "--out", "o.png", "--control", "o.png"],
    "no image to begin with": ["generate", "x", "--out", "o.png", "--init", "/no/such.png"],
    "no image": ["generate", "x", "--out", "o.png", "--init", str(Path(__file__))],
    "a mask of nothing": ["generate", "x", "--out", "o.png", "--mask", "o.png"],
    "strength": ["generate", "x", "--out", "o.png", "--init", "o.png", "--strength", "nan"],
    "port": ["serve", "--port", "70000"],
    "host": ["serve", "--host", "no.such.host.invalid", "--port", "29500"],
    "unknown key": ["models", "delete", "nope"],
}


def lines_without_new_database(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on stderr but the one of a command on a new root, whatever follows."""
    lines = capsys.readouterr().err.strip().splitlines()
    return [line for line in lines if not line.endswith(" is a new database")]


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_wrong_usage_prints_one_line_and_exits_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rooted = [*arguments, "--root", str(tmp_path / "root")] if arguments and arguments[0] != "paint" else arguments
    try:
        status = main(rooted)
    except SystemExit as end:
        status = int(end.code or 0)
    lines = lines_without_new_database(capsys)
    assert status == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("invokeclone")


def test_invalid_settings_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "invokeai.yaml").write_text("port: many\n")
    assert main(["models", "list", "--root", str(tmp_path)]) == 2
    assert "port" in capsys.readouterr().err


def test_db_upgrade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["db", "upgrade", "--root", str(tmp_path)]) == 0
        assert "is at revision" in capsys.readouterr().out
    assert (tmp_path / "databases" / "invokeai.db").exists()


def test_models_list(tmp_path: Path) -> None:
    assert main(["models", "list", "--root", str(tmp_path)]) == 0


def test_install_of_a_missing_path_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "install", str(tmp_path / "nope"), "--root", str(tmp_path)]) in (1, 2)
    assert len(lines_without_new_database(capsys)) == 1


def test_openapi_prints_the_document(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "invokeclone", "openapi", "--root", str(tmp_path / "root")]
    result = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(result.stdout)["paths"]
    assert not (tmp_path / "root").exists()


def test_a_busy_port_falls_back_to_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with listen("127.0.0.1", port) as listener:
            assert port < listener.getsockname()[1] <= port + 100
    assert f"port {port} is busy" in capsys.readouterr().err
