"""A command without the environment of its root's server uses the server's data or none."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.cli import serve, server_environment
from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError, main
from invokeclone.kit.config.settings import Settings

ADDRESS = "postgresql://invokeclone:hidden@db.example/accounts?sslmode=require"
COMMANDS = {
    "user": ["user", "list"],
    "token": ["worker", "token", "list"],
    "models": ["models", "list"],
    "generate": ["generate", "x", "--out", "never-written.png"],
    "upgrade": ["db", "upgrade"],
    "copy database": ["db", "copy", "--to", "postgresql://other/database"],
    "copy storage": ["storage", "copy", "--to", "file:///never-written"],
    "orphans": ["storage", "orphans", "--delete"],
    "serve": ["serve"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def load(root: Path) -> Settings:
    return settings_for(SimpleNamespace(root=root), uses_data=False)  # type: ignore[arg-type]


def record(root: Path, **environment: str) -> None:
    """Record the environment of a server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"INVOKEAI_{name.upper()}", value)
        server_environment.record(load(root))


def content(root: Path) -> Any:
    file = root / server_environment.FILE
    return json.loads(file.read_text()) if file.exists() else None


@pytest.mark.parametrize("command", list(COMMANDS))
def test_commands_without_the_servers_database_do_nothing(
    root: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record(root, database_url=ADDRESS)
    assert main([*COMMANDS[command], "--root", str(root)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        f"invokeclone: the server of {root} has INVOKEAI_DATABASE_URL (postgresql://db.example:5432/accounts) in its"
    )
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("; INVOKEAI_DATABASE_URL=null selects the default on purpose\n")
    assert {path.name for path in root.iterdir()} <= {server_environment.FILE, ".invokeclone.lock"}


@pytest.mark.parametrize(
    ("name", "value", "recorded"),
    [
        ("database_url", ADDRESS, "postgresql://db.example:5432/accounts"),
        ("db_dir", "elsewhere", "elsewhere"),
        ("storage_url", "s3://bucket/prefix", "s3://bucket/prefix"),
        ("storage_endpoint", "http://s3:9000", "http://s3:9000"),
        ("outputs_dir", "/fast/outputs", "/fast/outputs"),
        ("style_presets_dir", "presets", "presets"),
        ("workflow_thumbnails_dir", "pictures", "pictures"),
        ("models_dir", "~/weights", str(Path.home() / "weights")),
    ],
)
def test_each_setting_that_selects_data_is_compared(
    root: Path, name: str, value: str, recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(root, **{name: value})
    assert content(root) == {name: recorded}
    for check in (server_environment.as_server, server_environment.check_server):
        with pytest.raises(CommandError, match=rf"INVOKEAI_{name.upper()} \({recorded.replace('?', '.')}\)"):
            check(load(root))
    (root / "invokeai.yaml").write_text(f"{name}: {value}\n")
    server_environment.as_server(load(root))
    (root / "invokeai.yaml").unlink()
    monkeypatch.setenv(f"INVOKEAI_{name.upper()}", value)
    server_environment.as_server(load(root))


def test_every_setting_for_data_is_listed() -> None:
    others = {
        "legacy_conf_dir",
        "convert_cache_dir",
        "download_cache_dir",
        "fonts_dir",
        "custom_nodes_dir",
        "profiles_dir",
    }
    others |= {"shared_models_dir", "model_cache_dir"}  # of joined workers
    others |= {"events_url"}
    names = {
        name for name in Settings.model_fields if name.endswith(("_dir", "database_url", "storage_url", "events_url"))
    }
    assert names - others <= set(server_environment.DATA)


def test_the_password_is_not_written(root: Path) -> None:
    record(root, database_url="postgresql://u:hidden@/accounts?host=/run/postgresql&password=hidden&user=u")
    assert content(root) == {"database_url": "postgresql:///accounts?host=%2Frun%2Fpostgresql"}


def test_one_database_has_several_addresses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, database_url=ADDRESS)
    for address in ("postgres://other:x@db.example:5432/accounts", "postgresql+asyncpg://db.example/accounts"):
        (root / "invokeai.yaml").write_text(f"database_url: {address}\n")
        server_environment.as_server(load(root))
    (root / "invokeai.yaml").write_text("database_url: postgresql://db.example/other\n")
    with pytest.raises(CommandError, match="would use other data"):
        server_environment.as_server(load(root))


def test_the_root_may_be_mounted_elsewhere(root: Path, tmp_path: Path) -> None:
    record(root, db_dir=str(root / "fast"))
    moved = root.rename(tmp_path / "moved")
    (moved / "invokeai.yaml").write_text("db_dir: fast\n")
    server_environment.as_server(load(moved))


def test_other_data_on_purpose(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, database_url=ADDRESS)
    monkeypatch.setenv("INVOKEAI_DATABASE_URL", "")  # as of a variable of the shell that is not set
    for check in (server_environment.as_server, server_environment.check_server):
        with pytest.raises(CommandError, match="INVOKEAI_DATABASE_URL"):
            check(load(root))
    monkeypatch.setenv("INVOKEAI_DATABASE_URL", "null")
    server_environment.as_server(load(root))
    server_environment.check_server(load(root))
    server_environment.record(load(root))
    monkeypatch.delenv("INVOKEAI_DATABASE_URL")
    server_environment.as_server(load(root))
    server_environment.check_server(load(root))
    server_environment.record(load(root))
    assert content(root) is None


def test_a_server_may_change_to_the_data_of_its_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(root, database_url=ADDRESS)
    (root / "invokeai.yaml").write_text("database_url: null\n")
    with pytest.raises(CommandError, match="this command would use other data"):
        server_environment.as_server(load(root))
    server_environment.check_server(load(root))
    assert "database_url was postgresql://db.example:5432/accounts" in capsys.readouterr().err


def test_commands_have_the_servers_multiuser(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, multiuser="true")
    assert server_environment.as_server(load(root)).multiuser
    server_environment.check_server(load(root))
    monkeypatch.setenv("INVOKEAI_MULTIUSER", "false")
    assert not server_environment.as_server(load(root)).multiuser


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0"])
def test_a_damaged_record_is_one_line(root: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (root / server_environment.FILE).write_text(text)
    assert main(["user", "list", "--root", str(root)]) == 2
    assert f"{root / server_environment.FILE} cannot be read" in capsys.readouterr().err


def test_commands_without_data_need_no_environment(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(root, database_url=ADDRESS)
    assert main(["webui", "list", "--root", str(root)]) == 0


def test_the_server_records_its_environment_once_it_can_use_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record before serving, but not an address that cannot be used."""
    monkeypatch.setenv("INVOKEAI_STORAGE_URL", (root / "images").as_uri())
    monkeypatch.setenv("INVOKEAI_MULTIUSER", "true")
    monkeypatch.setattr(serve._Server, "run", lambda _self, sockets: setattr(_self, "started", True))
    monkeypatch.setattr(sys, "stdout", sys.stderr)
    assert main(["serve", "--root", str(root), "--port", "29591"]) == 0
    assert content(root) == {"storage_url": (root / "images").as_uri(), "multiuser": True}
    monkeypatch.setenv("INVOKEAI_STORAGE_URL", "file:///dev/null/x")
    assert main(["serve", "--root", str(root), "--port", "29591"]) == 2
    assert content(root)["storage_url"] == (root / "images").as_uri()
    monkeypatch.delenv("INVOKEAI_STORAGE_URL")
    assert main(["serve", "--root", str(root), "--port", "29591"]) == 2
