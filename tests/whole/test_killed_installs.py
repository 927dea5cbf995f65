"""kill -9 of the server around the transitions of an installation and before each operation: the next start leaves nothing half-done."""

import asyncio
import contextlib
import itertools
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from tests.fake_web import FakeWeb, Page, serve_fake_web
from tests.server_process import Server
from tests.whole.killing import INSTALL as ADD
from tests.whole.killing import KilledServer

INSTALL = "/api/v2/models/install"
RESTING = {"completed", "error", "cancelled", "paused"}
SHAPES = {"decoder.conv_in.weight": (2, 4, 3, 3), "encoder.conv_in.weight": (2, 3, 3, 3), "pad": (1024 * 1024,)}
DATA = save({name: np.ones(shape, np.float16) for name, shape in SHAPES.items()})

TRANSITIONS = {
    "web": "None>waiting waiting>waiting waiting>downloading downloading>downloads_done "
    "downloads_done>running running>completed completed>None",
    "local": "waiting>running running>completed",
    "moved": "waiting>running running>completed",
    "no model": "running>error error>None",
    "missing": "waiting>error error>waiting",
    "paused": "downloading>paused paused>waiting",
    "cancelled": "downloading>cancelled cancelled>None",
}
"""By what the client does, the transitions at which the server dies."""
KILLS = [
    (how, f"{transition}:{side}")
    for how, transitions in TRANSITIONS.items()
    for transition, side in itertools.product(transitions.split(), ("before", "after"))
]


class Client:
    """Installs one model, in one of several ways, until the server is dead."""

    def __init__(self, server: Server, web: FakeWeb, folder: Path, number: int) -> None:
        self.server, self.number = server, number
        self.path = folder / f"local{number}.safetensors"
        self.page: Page = web.page(f"/{number}/vae.safetensors", DATA)
        self.url = f"{web.url}/{number}/vae.safetensors"
        self.installs_local = self.moves = False

    def run(self, how: str) -> None:
        """Act as a client does whose server may die at any moment."""
        with contextlib.suppress(httpx.TransportError, json.JSONDecodeError):
            getattr(self, how.replace(" ", "_"))()
            self.server.client.delete(INSTALL)

    def web(self) -> None:
        self.wait(self.install(self.url), "completed")

    def local(self) -> None:
        self.path.write_bytes(DATA)
        self.installs_local = True
        self.wait(self.install(str(self.path)), "completed")

    def moved(self) -> None:
        self.moves = True
        self.local()

    def no_model(self) -> None:
        self.path.write_bytes(b"not one")
        self.installs_local = True
        self.wait(self.install(str(self.path)), "error")

    def missing(self) -> None:
        self.page.statuses = [404]
        job = self.wait(self.install(self.url), "error")
        self.server.client.post(f"{INSTALL}/{job}/restart_failed")
        self.wait(job, "completed")

    def paused(self) -> None:
        job = self.hold_download()
        self.server.client.post(f"{INSTALL}/{job}/pause")
        self.page.hold_after = None
        self.server.client.post(f"{INSTALL}/{job}/resume")
        self.wait(job, "completed")

    def cancelled(self) -> None:
        self.server.client.delete(f"{INSTALL}/{self.hold_download()}")

    def hold_download(self) -> int:
        self.page.hold_after = 1024 * 1024 + 1000
        job = self.install(self.url)
        self.server.wait_for(lambda: self.job(job)["status"] == "downloading", "the download")
        return job

    def install(self, source: str) -> int:
        query = {"source": source, "inplace": "false", "move": str(self.moves).lower()}
        answer = self.server.client.post(INSTALL, params=query, json={})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def job(self, number: int) -> dict[str, Any]:
        return dict(self.server.client.get(f"{INSTALL}/{number}").json())

    def wait(self, number: int, status: str) -> int:
        self.server.wait_for(lambda: self.job(number)["status"] == status, status)
        return number


def check(server: Server, clients: list[Client]) -> None:
    """Raise AssertionError unless rows, folders, records and files agree once every job rests."""

    def rest() -> bool:
        return all(job["status"] in RESTING for job in server.client.get(INSTALL).json())

    server.wait_for(rest, "the jobs to rest")
    server.client.delete(INSTALL)
    models = server.root / "models"
    with contextlib.closing(sqlite3.connect(server.root / "databases" / "invokeai.db", timeout=60)) as connection:
        entries = {row[0] for row in connection.execute("SELECT folder FROM model_installs")}
        records = dict(connection.execute("SELECT source, path FROM models").fetchall())
    paused = [job for job in server.client.get(INSTALL).json() if job["status"] == "paused"]
    assert len(entries) == len(paused)
    used = {Path(path).parts[0] for path in records.values() if not Path(path).is_absolute()}
    server.wait_for(lambda: {path.name for path in models.iterdir()} == used | entries, "the leftovers to be removed")
    assert list(models.glob("*/.unfinished")) == []
    for path in (models / path for path in records.values()):
        assert path.is_dir() or path.read_bytes() == DATA
    for client in clients:
        if client.moves and not client.path.exists():
            assert str(client.path) in records, client.path
        elif client.installs_local:
            assert client.path.read_bytes() in (DATA, b"not one"), client.path


ENVIRONMENT = {"INVOKEAI_ALLOW_PRIVATE_DOWNLOAD_URLS": "true", "INVOKEAI_SCAN_MODELS_ON_STARTUP": "false"}


class Operations:
    """Installs models by a server that dies at one operation after the other."""

    def __init__(self, killed: KilledServer, web: FakeWeb, folder: Path) -> None:
        self.killed, self.web, self.folder = killed, web, folder
        self.clients: list[Client] = []

    def client(self) -> Client:
        client = Client(self.killed.server, self.web, self.folder, len(self.clients))
        self.clients.append(client)
        return client

    def find(self, how: str) -> list[str]:
        """Return the operations of an installation that nothing happens to, after one that makes the folders."""
        self.client().run(how)
        client = self.client()
        return self.killed.operations(ADD, lambda _killed: client.run(how), lasting=True)

    def kill_at(self, how: str, point: str) -> None:
        """Kill the server before an operation; then the model is there, or the same installation succeeds."""
        client = self.client()
        self.killed.kill_at(ADD, point, lambda _killed: client.run(how), lasting=True)
        check(self.killed.server, self.clients)
        if not self.is_installed(client):
            client.run(how)
            check(self.killed.server, self.clients)
            assert self.is_installed(client)

    def is_installed(self, client: Client) -> bool:
        sources = {source for (source,) in self.killed.rows("SELECT source FROM models")}
        return bool(sources & {client.url, str(client.path)})


def make_operations(make_server: Callable[[], Server], web: FakeWeb, folder: Path) -> Operations:
    killed = KilledServer(make_server(), **ENVIRONMENT, HF_HOME=str(folder / "hf"))
    killed.start()
    return Operations(killed, web, folder)


@pytest.mark.timeout(600)
async def test_kill_between_copying_a_file_and_recording_it(make_server: Callable[[], Server], tmp_path: Path) -> None:
    async with serve_fake_web() as web:
        operations = await asyncio.to_thread(make_operations, make_server, web, tmp_path)
        await asyncio.to_thread(operations.kill_at, "moved", "SQL INSERT INTO models key #1")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["web", "local", "moved"])
async def test_kills_at_each_operation_leave_consistent_state(
    make_server: Callable[[], Server], tmp_path: Path, how: str
) -> None:
    async with serve_fake_web() as web:
        operations = await asyncio.to_thread(make_operations, make_server, web, tmp_path)
        points = await asyncio.to_thread(operations.find, how)
        assert sum(point.startswith("SQL after COMMIT") for point in points) >= (3 if how == "web" else 1)
        assert any(point.startswith("os.rename models") for point in points)
        for point in points:
            await asyncio.to_thread(operations.kill_at, how, point)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_kills_at_each_transition_leave_consistent_state(
    make_server: Callable[[], Server], tmp_path: Path
) -> None:
    server = make_server()
    commands = {"dies": ["-m", "tests.whole.killed_at"], "lives": server.command}
    clients: list[Client] = []
    async with serve_fake_web() as web:
        environment = {**ENVIRONMENT, "HF_HOME": str(tmp_path / "hf")}

        def round_of(number: int, how: str, kill: str) -> None:
            client = Client(server, web, tmp_path, number)
            clients.append(client)
            server.command = commands["dies"]
            server.start(**environment, KILL_AT=kill)
            client.run(how)
            assert server.process is not None
            assert server.process.wait(timeout=60) == -9, f"{how} did not die at {kill}"
            client.page.hold_after, client.page.statuses = None, []
            server.command = commands["lives"]
            server.start(**environment)
            check(server, clients)
            server.kill()

        for number, (how, kill) in enumerate(KILLS):
            await asyncio.to_thread(round_of, number, how, kill)
            for page in web.pages.values():
                page.go.set()
