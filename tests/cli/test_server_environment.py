"""A command without the environment of its root's server uses the server's data or none."""

import asyncio
import gc
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from invokeclone.cli import serve, server_environment
from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError, main
from invokeclone.cli.server_environment import Data
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage.addresses import ENDPOINT_VARIABLES

ADDRESS = "postgresql://invokeclone:hidden@db.example/accounts?sslmode=require"
COMMANDS = {
    "user": ["user", "list"],
    "token": ["worker", "token", "list"],
    "models": ["models", "list"],
    "generate": ["generate", "x", "--out", "never-written.png"],
    "upgrade": ["db", "upgrade"],
    "copy database": ["db", "copy", "--to", "postgresql://other/database"],
    "orphans": ["storage", "orphans", "--delete"],
    "serve": ["serve"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def load(root: Path) -> Settings:
    return settings_for(SimpleNamespace(root=root), uses=())  # type: ignore[arg-type]


def as_command(settings: Settings, *uses: Data) -> Settings:
    """Return the settings of a command that uses all kinds of data, or these."""
    return server_environment.as_server(settings, uses or server_environment.DATA)


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
        ("storage_url", "file:///images", "file:///images"),
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
    for check in (as_command, server_environment.check_server):
        with pytest.raises(CommandError, match=rf"INVOKEAI_{name.upper()} \({recorded.replace('?', '.')}\)"):
            check(load(root))
    (root / "invokeai.yaml").write_text(f"{name}: {value}\n")
    as_command(load(root))
    (root / "invokeai.yaml").unlink()
    monkeypatch.setenv(f"INVOKEAI_{name.upper()}", value)
    as_command(load(root))


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
    assert names - others <= set(server_environment.NAMES)


def test_the_password_is_not_written(root: Path) -> None:
    record(root, database_url="postgresql://u:hidden@/accounts?host=/run/postgresql&password=hidden&user=u")
    assert content(root) == {"database_url": "postgresql:///accounts?host=%2Frun%2Fpostgresql"}


def test_one_database_has_several_addresses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, database_url=ADDRESS)
    for address in ("postgres://other:x@db.example:5432/accounts", "postgresql+asyncpg://db.example/accounts"):
        (root / "invokeai.yaml").write_text(f"database_url: {address}\n")
        as_command(load(root))
    (root / "invokeai.yaml").write_text("database_url: postgresql://db.example/other\n")
    with pytest.raises(CommandError, match="would use other data"):
        as_command(load(root))


def test_the_root_may_be_mounted_elsewhere(root: Path, tmp_path: Path) -> None:
    record(root, db_dir=str(root / "fast"))
    moved = root.rename(tmp_path / "moved")
    (moved / "invokeai.yaml").write_text("db_dir: fast\n")
    as_command(load(moved))


def test_other_data_on_purpose(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, database_url=ADDRESS)
    monkeypatch.setenv("INVOKEAI_DATABASE_URL", "")  # as of a variable of the shell that is not set
    for check in (as_command, server_environment.check_server):
        with pytest.raises(CommandError, match="INVOKEAI_DATABASE_URL"):
            check(load(root))
    monkeypatch.setenv("INVOKEAI_DATABASE_URL", "null")
    as_command(load(root))
    server_environment.check_server(load(root))
    server_environment.record(load(root))
    monkeypatch.delenv("INVOKEAI_DATABASE_URL")
    as_command(load(root))
    server_environment.check_server(load(root))
    server_environment.record(load(root))
    assert content(root) is None


def test_a_server_may_change_to_the_data_of_its_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(root, database_url=ADDRESS)
    (root / "invokeai.yaml").write_text("database_url: null\n")
    with pytest.raises(CommandError, match="this command would use other data"):
        as_command(load(root))
    server_environment.check_server(load(root))
    assert "database_url was postgresql://db.example:5432/accounts" in capsys.readouterr().err


def test_commands_have_the_servers_multiuser(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, multiuser="true")
    assert as_command(load(root)).multiuser
    server_environment.check_server(load(root))
    monkeypatch.setenv("INVOKEAI_MULTIUSER", "false")
    assert not as_command(load(root)).multiuser


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0"])
def test_a_damaged_record_is_one_line(root: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (root / server_environment.FILE).write_text(text)
    assert main(["user", "list", "--root", str(root)]) == 2
    assert f"{root / server_environment.FILE} cannot be read" in capsys.readouterr().err


def test_commands_without_data_need_no_environment(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(root, database_url=ADDRESS)
    assert main(["webui", "list", "--root", str(root)]) == 0


def serve_without_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `serve` end once it listens."""

    async def startup(self: uvicorn.Server, sockets: Any) -> None:
        self.started = True

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    monkeypatch.setattr(serve._Server, "run", lambda self, sockets: asyncio.run(self.startup(sockets)))
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(sys, "stdout", sys.stderr)


def test_the_server_records_its_environment_once_it_serves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that fails does not become what the next server is compared with."""
    serve_without_server(monkeypatch)
    images = (root / "images").as_uri()
    command = ["serve", "--root", str(root), "--port", "29591"]
    monkeypatch.setenv("INVOKEAI_STORAGE_URL", images)
    assert main([*command, "--host", "no.such.host.invalid"]) == 2
    assert content(root) is None
    monkeypatch.setenv("INVOKEAI_MULTIUSER", "true")
    assert main(command) == 0
    assert content(root) == {"storage_url": images, "multiuser": True}
    monkeypatch.setenv("INVOKEAI_STORAGE_URL", "file:///dev/null/x")
    assert main(command) == 2
    assert content(root)["storage_url"] == images
    monkeypatch.delenv("INVOKEAI_STORAGE_URL")
    assert main(command) == 2


def test_a_record_that_cannot_be_written_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_without_server(monkeypatch)
    (root / server_environment.FILE).mkdir()
    monkeypatch.setattr(server_environment, "_read", lambda _root: {})
    monkeypatch.setenv("INVOKEAI_MULTIUSER", "true")
    assert main(["serve", "--root", str(root), "--port", "29591"]) == 0
    assert f"{root / server_environment.FILE} cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["storage_url", "storage_endpoint"])
def test_secrets_of_addresses_are_not_written(root: Path, name: str) -> None:
    record(root, **{name: "https://key:hidden@minio:9000/a?token=hidden#hidden"})
    assert content(root) == {name: "https://minio:9000/a"}


@pytest.mark.parametrize("variable", ["INVOKEAI_STORAGE_ENDPOINT", *ENDPOINT_VARIABLES])
def test_the_service_of_a_bucket_is_compared(root: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if only AWS's variables name it."""
    (root / "invokeai.yaml").write_text("storage_url: s3://bucket\n")
    monkeypatch.setenv(variable, "http://minio:9000")
    server_environment.record(load(root))
    as_command(load(root))
    assert content(root) == {"storage_endpoint": "http://minio:9000"}
    monkeypatch.delenv(variable)
    for check in (as_command, server_environment.check_server):
        with pytest.raises(CommandError, match=r"INVOKEAI_STORAGE_ENDPOINT or AWS_ENDPOINT_URL \(http://minio:9000\)"):
            check(load(root))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other:9000")
    server_environment.check_server(load(root))  # a change on purpose
    with pytest.raises(CommandError, match="would use other data"):
        as_command(load(root))
    monkeypatch.setenv("INVOKEAI_STORAGE_ENDPOINT", "http://third:9000")
    as_command(load(root))


def test_the_service_of_a_bucket_may_be_amazons(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, storage_url="s3://bucket")
    assert content(root) == {"storage_url": "s3://bucket", "storage_endpoint": None}
    monkeypatch.setenv("INVOKEAI_STORAGE_URL", "s3://bucket")
    as_command(load(root))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    with pytest.raises(CommandError, match="has no INVOKEAI_STORAGE_ENDPOINT or AWS_ENDPOINT_URL in its environment"):
        as_command(load(root))


def test_commands_need_only_what_they_use(root: Path) -> None:
    record(root, models_dir="/models", storage_url="s3://bucket", db_dir="/databases")
    settings = load(root)
    needed: dict[Data, set[str]] = {
        "database": {"db_dir"},
        "images": {"storage_url", "storage_endpoint"},
        "models": {"models_dir"},
    }
    for kind, names in needed.items():
        (root / "invokeai.yaml").write_text("")
        with pytest.raises(CommandError) as refused:
            as_command(settings, kind)
        for name in server_environment.NAMES:
            is_named = f"INVOKEAI_{name.upper()} (" in str(refused.value)
            assert is_named == (name in names - {"storage_endpoint"})


def test_settings_that_another_one_makes_inactive_are_not_compared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root, outputs_dir="/outputs", storage_endpoint="http://minio", db_dir="/databases")
    file = root / "invokeai.yaml"
    file.write_text("database_url: postgresql://db/x\nstorage_url: file:///images\n")
    as_command(load(root))
    file.write_text("database_url: postgresql://db/x\nstorage_url: s3://bucket\n")
    with pytest.raises(CommandError) as refused:
        as_command(load(root))
    assert "INVOKEAI_STORAGE_ENDPOINT" in str(refused.value)
    assert "_DIR" not in str(refused.value)
    record(root, database_url=ADDRESS, db_dir="/databases")
    file.unlink()
    with pytest.raises(CommandError) as refused:
        as_command(load(root))
    assert "INVOKEAI_DB_DIR" not in str(refused.value)
    monkeypatch.setenv("INVOKEAI_DATABASE_URL", "null")
    with pytest.raises(CommandError, match="INVOKEAI_DB_DIR"):
        as_command(load(root))


def test_a_key_of_a_server_with_accounts_needs_an_owner(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key of the system user would not work."""
    record(root, multiuser="true")
    assert main(["user", "key", "add", "x", "--root", str(root)]) == 2
    assert "name the owner of the key with --email" in capsys.readouterr().err
    monkeypatch.setenv("INVOKEAI_MULTIUSER", "false")
    assert main(["user", "key", "add", "x", "--root", str(root)]) == 0


@pytest.mark.parametrize(
    ("address", "other", "are_equal"),
    [
        ("postgresql://DB.Example/x", "postgresql://db.example:5432/x", True),
        ("postgresql:///x?host=/run/x", "postgresql:///x?host=/run/x&port=5432", True),
        ("postgresql:///x?host=/run/x", "postgresql:///x?host=/run/X", False),
        ("postgresql:///x?host=/run/x", "postgresql:///x?host=/run/x&port=5433", False),
        ("postgresql://db/x?port=5433", "postgresql://db:5433/x", True),
        ("postgresql://db/x?port=5433", "postgresql://db/x", False),
        ("nonsense", "other nonsense", False),
        ("nonsense", "nonsense", True),
    ],
)
def test_databases_are_compared_by_where_they_are(address: str, other: str, are_equal: bool) -> None:
    assert (server_environment._database(address) == server_environment._database(other)) == are_equal
