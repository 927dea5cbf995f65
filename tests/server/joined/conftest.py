"""A server that workers may join, agents with fake worker processes, and a network between them that can be cut."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import orjson
import pytest
import uvicorn
from sqlalchemy import select
from websockets.asyncio.client import connect

from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.queue import service, store
from invokeclone.queue.batches import Batch
from invokeclone.server.http.websocket_protocol import WebSocketProtocol
from invokeclone.server.joined import api
from invokeclone.server.joined import service as joined_service
from invokeclone.server.joined.address import ServerAddress
from invokeclone.server.joined.agent import Agent
from invokeclone.server.joined.calls import Dispatch, no_operations
from invokeclone.server.joined.connection import ITEM_FIELDS
from invokeclone.server.joined.protocol import PROTOCOL, Assembler, frames_of
from invokeclone.server.joined.service import JoinedWorkers
from invokeclone.server.supervision.lease_keeper import LeaseKeeper
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.tables import session_queue
from invokeclone.users import worker_tokens
from invokeclone.version import __version__
from tests.tcp_proxy import Proxy

COLUMNS = ("status", "device", "worker_id", "fence", "interruptions", "error_type", "error_message", "session")
ROW = PreparedStatement(
    select(*(session_queue.c[name] for name in COLUMNS)).where(session_queue.c.item_id == parameter("item_id"))
)
HERE = Path(__file__).parent
PATIENCE_S = 60.0


@invocation_output("joined_test_output")
class JoinedTestOutput(BaseInvocationOutput):
    pass


@invocation("joined_test", version="1.0.0")
class JoinedTestInvocation(BaseInvocation):
    """A node that no worker of these tests invokes."""

    def invoke(self, context: Any) -> JoinedTestOutput:
        return JoinedTestOutput()


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not (result := condition()):
            await asyncio.sleep(0.01)
        return result


class Machine:
    """A folder of a fake worker: what it notes, and what it waits for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def hello(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "hello").read_text()))

    def noted(self, *words: object) -> Callable[[], list[str]]:
        beginning = " ".join(map(str, words))
        return lambda: [line for line in self.notes if line.startswith(beginning)]

    def go(self) -> None:
        (self.folder / "go").touch()

    def say(self, **message: Any) -> None:
        (self.folder / "saying").write_text(json.dumps(message))
        (self.folder / "saying").rename(self.folder / "say")

    @property
    def worker_pid(self) -> int:
        return int(self.noted("start")()[-1].split()[1])


class Cluster:
    """A server and the workers that join it, over one proxy."""

    def __init__(self, resources: Resources, proxy: Proxy, folder: Path) -> None:
        self.settings = resources.settings.model_copy(
            update={"generation_devices": [], "external_openai_api_key": "s3"}
        )
        self.resources = Resources(self.settings, resources.database, Bus())
        self.proxy = proxy
        self.folder = folder
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.token = ""
        self.dispatch: Dispatch = no_operations
        self.exits = contextlib.AsyncExitStack()
        self._server = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"

    async def start(self) -> None:
        bus = Bus()
        self.resources.events = bus
        bus.subscribe(lambda kind, payload: self.events.append((kind.name, payload)))
        self.supervisor = Supervisor(self.settings, bus, self._no_orphans)
        await self.supervisor.start()
        self._server.push_async_callback(self.supervisor.stop)
        joined = JoinedWorkers(self.resources, self.supervisor, self.dispatch)
        self._server.push_async_callback(joined.stop)
        self.keeper = LeaseKeeper(self.resources, self.supervisor, interval_s=0.05)
        await self.keeper.start()
        self._server.push_async_callback(self.keeper.stop)
        app = Application()
        app.services.add(Resources, self.resources)
        app.services.add(JoinedWorkers, joined)
        self.joined = joined
        app.services.add(Supervisor, self.supervisor)
        app.include_router(api.router)
        config = uvicorn.Config(
            app, port=0, log_level="error", lifespan="off", ws=WebSocketProtocol, timeout_graceful_shutdown=1,
            ws_max_size=self.settings.limits.socket_message_kib * 1024,
        )  # fmt: skip
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        self.proxy.target = server.servers[0].sockets[0].getsockname()[1]
        self.connections = server.server_state.connections

        async def stop() -> None:
            self.proxy.target = None
            self.proxy.cut()
            server.should_exit = True
            await task

        self._server.push_async_callback(stop)

    async def stop(self) -> None:
        await self._server.aclose()

    async def _no_orphans(self, _worker_id: str, _reason: str) -> None:
        raise AssertionError("this server has no workers of its own")

    async def machine(self, name: str = "box") -> tuple[Machine, Agent]:
        """Join a worker whose agent runs in this process."""
        machine = Machine(self.folder / name)
        agent = Agent(
            ServerAddress(self.url),
            self.token,
            settings=Settings(root=self.folder / "elsewhere", device="cpu"),
            name=name,
            device="cpu",
            command=("env", f"JOINED_TEST_FOLDER={machine.folder}", sys.executable, "-S", str(HERE / "fake_worker.py")),
            first_delay_s=0.01,
            grace_s=20,
        )
        task = asyncio.create_task(agent.run())

        async def end() -> None:
            agent.stop()
            await asyncio.gather(task, return_exceptions=True)

        self.exits.push_async_callback(end)
        await until(machine.noted("start"))
        return machine, agent

    async def machine_process(self, name: str = "box") -> tuple[Machine, int]:
        """Join a worker whose agent is a process."""
        machine = Machine(self.folder / name)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "agent_process.py"),
            self.url,
            name,
            str(self.folder / "elsewhere"),
            env={
                **os.environ,
                "JOINED_TEST_FOLDER": str(machine.folder),
                "INVOKECLONE_WORKER_TOKEN": self.token,
                "PYTHONPATH": str(HERE.parents[2]),
            },
        )

        async def end() -> None:
            for pid in (process.pid, machine.worker_pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]

        self.exits.push_async_callback(end)
        await until(machine.noted("start"))
        return machine, process.pid

    async def enqueue(self, runs: int = 1) -> list[int]:
        graph = {"id": "g", "nodes": {"a": {"id": "a", "type": "joined_test"}}, "edges": []}
        batch = Batch.model_validate({"graph": graph, "runs": runs})
        return sorted((await service.enqueue(self.resources, "default", batch)).item_ids)

    def statuses(self) -> list[str]:
        return [data["status"] for name, data in self.events if name == "queue_item_status_changed"]

    async def row(self, item_id: int) -> dict[str, Any]:
        row = await ROW.first(self.resources.database, item_id=item_id)
        assert row
        return dict(zip(COLUMNS, row, strict=True))

    async def ended(self, item_id: int) -> dict[str, Any]:
        return await self.reaches(item_id, "completed", "failed", "canceled")

    async def reaches(self, item_id: int, *statuses: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while (row := await self.row(item_id))["status"] not in statuses:
                await asyncio.sleep(0.02)
        return row


SetLease = Callable[[float], None]


@pytest.fixture
def set_lease(monkeypatch: pytest.MonkeyPatch) -> SetLease:
    def act(seconds: float) -> None:
        monkeypatch.setattr(store, "LEASE_S", seconds)
        monkeypatch.setattr(joined_service, "LEASE_S", seconds)

    return act


@pytest.fixture
async def cluster(resources: Resources, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Proxy().open() as proxy:
        cluster = Cluster(resources, proxy, tmp_path)
        cluster.token = await worker_tokens.create(resources.database, "tests")
        await cluster.start()
        try:
            yield cluster
        finally:
            await cluster.exits.aclose()
            await cluster.stop()


Join = Callable[..., Awaitable[tuple[Machine, Agent]]]


JOIN = {
    "kind": "join", "protocol": PROTOCOL, "version": __version__, "name": "raw", "device": "cpu",
    "worker_id": "joined:raw:cpu:1", "pid": 1,
}  # fmt: skip


def connect_raw(cluster: Cluster, token: str | None = None, **options: Any) -> connect:
    url = ServerAddress(cluster.url).socket_url
    return connect(
        url,
        additional_headers={"Authorization": f"Bearer {token or cluster.token}"},
        proxy=None,
        compression=None,
        **options,
    )


class RawWorker:
    """A worker without an agent, which sends what the test says."""

    def __init__(
        self, cluster: Cluster, name: str = "raw", *, token: str | None = None, deaf: bool = False, **options: Any
    ) -> None:
        """Join as `name`; `deaf`: read no more than the hello, with small buffers."""
        self._deaf = deaf
        if deaf:
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.connect(("127.0.0.1", cluster.proxy.target))
            options["sock"] = small
        self._connecting = connect_raw(cluster, token, **options)
        self._join = JOIN | {"name": name, "worker_id": f"joined:{name}:cpu:1"}
        self._assembler = Assembler()

    async def __aenter__(self) -> Self:
        self.socket = await self._connecting.__aenter__()
        await self.send(self._join)
        assert (await self.receive())["kind"] == "hello"
        if self._deaf:
            self.socket.transport.pause_reading()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.socket.transport.abort()
        await self.socket.wait_closed()

    async def send(self, message: Any) -> None:
        for frame in frames_of(orjson.dumps(message), 64 * 1024):
            await self.socket.send(frame)

    async def receive(self) -> dict[str, Any]:
        while (message := self._assembler.add(await self.socket.recv())) is None:
            pass
        return message

    async def start_call(
        self, number: int, method: str, arguments: dict[str, Any], *, oldest: int | None = None
    ) -> None:
        oldest = number if oldest is None else oldest
        await self.send({"kind": "call", "id": number, "oldest": oldest, "method": method, "arguments": arguments})

    async def call(self, number: int, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        await self.start_call(number, method, arguments)
        while (message := await self.receive())["kind"] != "result" or message["id"] != number:
            pass
        return message

    async def claim(self, number: int = 1) -> dict[str, Any]:
        """Claim an item and return what its events must have."""
        item = (await self.call(number, "queue.claim", {}))["value"]["item"]
        return {name: item[name] for name in (*ITEM_FIELDS, "user_id", "fence")}

    async def closed(self) -> int | None:
        """Wait until the server closes the connection; return its code."""
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.wait_closed()
        return self.socket.close_code
