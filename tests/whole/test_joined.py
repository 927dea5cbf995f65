"""A worker that has only the server's URL and a token renders what the server's own worker renders."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.users import worker_tokens
from tests.server_process import Server, serving


def token_for(server: Server) -> str:
    async def create() -> str:
        database = SqliteDatabase(server.root / "databases" / "invokeai.db")
        try:
            return await worker_tokens.create(database, "tests")
        finally:
            await database.close()

    return asyncio.run(create())


@contextlib.contextmanager
def joined(server: Server, root: Path) -> Iterator[Path]:
    """Run a worker with a root of its own, and give its log."""
    log = root.parent / "worker.log"
    command = [sys.executable, "-m", "invokeclone", "worker", "--join", server.url, "--device", "cpu", "--name", "box"]
    environment = {**os.environ, "INVOKECLONE_WORKER_TOKEN": token_for(server)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--root", str(root)], env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL
        )
    try:
        yield log
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_text_to_image_is_the_same_as_on_the_servers_machine(shared_server: Server, tmp_path: Path) -> None:
    root = tmp_path / "server"
    root.mkdir()
    (root / "invokeai.yaml").write_text("schema_version: 4.0.3\ngeneration_devices: []\n", encoding="utf-8")
    (local,) = (shared_server.finished(item_id) for item_id in shared_server.enqueue(shared_server.batch(seed=7)))
    with serving(root) as server, joined(server, tmp_path / "worker") as log:
        server.wait_for(lambda: server.client.get("/api/v2/models/").json()["models"], "the embedded model")
        (item,) = (server.finished(item_id) for item_id in server.enqueue(server.batch(seed=7)))
        assert item["status"] == "completed", (item["error_traceback"], log.read_text(encoding="utf-8"))
        assert item["device"] == "box/cpu"
        assert server.output_pixels(item) == shared_server.output_pixels(local)
        expected = shared_server.output_metadata(local)
        assert server.output_metadata(item) == expected
        name = server.output_image(item)["image_name"]
        assert server.client.get(f"/api/v1/images/i/{name}/thumbnail").content[8:12] == b"WEBP"
        files = {path.name for path in (tmp_path / "worker").rglob("*") if path.is_file()}
        assert "model_index.json" in files
        assert not {file for file in files if file.endswith((".png", ".db"))}
