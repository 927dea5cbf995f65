"""The real worker process on a real database: what it says, what it leaves in the rows, and how it ends."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, processor, service, store
from invokeclone.queue.batches import Batch

TOYS = Path(__file__).parent / "toys.py"
PATIENCE = 60
NUMBERS = {
    "one": {"type": "toy_number", "value": 3},
    "sum": {"type": "toy_add", "b": 4},
    "all": {"type": "collect"},
}
EDGES = (("one.value", "sum.a"), ("sum.value", "all.item"))
LONG = {"steps": {"type": "toy_steps"}}
STUBBORN = {"steps": {"type": "toy_steps", "heed": False}}


class Worker:
    """A started worker and everything it said."""

    def __init__(self, process: asyncio.subprocess.Process, resources: Resources, make: Any) -> None:
        self.process = process
        self.heard: list[dict[str, Any]] = []
        self.errors = b""
        self._resources = resources
        self._make = make
        self._changed = asyncio.Condition()
        self._over = False
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._listen_errors())]

    async def _listen(self) -> None:
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            async with self._changed:
                self.heard.append(orjson.loads(line))
                self._changed.notify_all()
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def _listen_errors(self) -> None:
        assert self.process.stderr
        while text := await self.process.stderr.read(4096):
            self.errors += text

    def say(self, **message: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(orjson.dumps(message) + b"\n")

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a message, among those heard already too."""
        async with asyncio.timeout(PATIENCE), self._changed:
            while not (matches := [message for message in self.heard if condition(message)]):
                assert not self._over, self.errors.decode()
                await self._changed.wait()
        return matches[0]

    async def event(self, name: str, **fields: Any) -> dict[str, Any]:
        def fits(message: dict[str, Any]) -> bool:
            return message.get("name") == name and fields.items() <= message["data"].items()

        return (await self.until(fits))["data"]

    async def ask(self, number: int, name: str, **body: Any) -> dict[str, Any]:
        self.say(kind="request", id=number, name=name, body=body)
        return await self.until(lambda message: message["kind"] == "reply" and message["id"] == number)

    async def enqueue(self, nodes: dict[str, Any], *edges: tuple[str, str]) -> int:
        batch = Batch.model_validate({"graph": self._make.graph(nodes, *edges), "runs": 1})
        item_ids = (await service.enqueue(self._resources, "default", batch)).item_ids
        self.say(kind="wake")
        return item_ids[0]

    async def item(self, item_id: int) -> dict[str, Any]:
        async with self._resources.database.read() as connection:
            item: dict[str, Any] = orjson.loads(await store.get_json(connection, "default", item_id))
        return item

    def event_pairs(self, item_id: int) -> list[tuple[str, str | None]]:
        """Return (event, status or source node) of one item, in order."""
        events = [message for message in self.heard if message["kind"] == "event"]
        return [
            (event["name"], event["data"].get("status") or event["data"].get("invocation_source_id"))
            for event in events
            if event["data"].get("item_id") == item_id
        ]

    async def wait_for_exit(self) -> int:
        async with asyncio.timeout(PATIENCE):
            status = await self.process.wait()
            await asyncio.gather(*self._tasks)
        return status

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.wait_for_exit()
        self.process._transport.close()  # type: ignore[attr-defined]


Start = Callable[..., Any]


@pytest.fixture
async def start(resources: Resources, make: Any) -> AsyncIterator[Start]:
    started: list[Worker] = []

    async def act(**hello: Any) -> Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(TOYS),
            "--device",
            "cpu",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        worker = Worker(process, resources, make)
        started.append(worker)
        worker.say(kind="hello", settings=resources.settings.to_worker(), **hello)
        await worker.until(lambda message: message["kind"] == "ready")
        return worker

    yield act
    for worker in started:
        await worker.close()


async def test_graph_events_are_in_order_and_prints_stay_out_of_the_link(start: Start) -> None:
    worker = await start()
    ready = worker.heard[0]
    assert (ready["kind"], ready["device"], ready["pid"]) == ("ready", "cpu", worker.process.pid)
    item_id = await worker.enqueue(NUMBERS, *EDGES)
    await worker.event("queue_item_status_changed", item_id=item_id, status="completed")
    pairs = [(name, node) for node in ("one", "sum", "all") for name in ("invocation_started", "invocation_complete")]
    changed = "queue_item_status_changed"
    assert worker.event_pairs(item_id) == [(changed, "in_progress"), *pairs, (changed, "completed")]
    item = await worker.item(item_id)
    assert (item["status"], item["device"]) == ("completed", "cpu")
    session = item["session"]
    (collected,) = session["source_prepared_mapping"]["all"]
    assert session["results"][collected]["collection"] == [7]
    counted = await worker.until(lambda message: "invokeclone_item_duration_seconds" in message.get("metrics", {}))
    assert counted["kind"] == "heartbeat"
    assert counted["metrics"]["invokeclone_item_duration_seconds"][0][0] == ["cpu", "completed", "none"]
    assert b"printed by a node" in worker.errors


async def test_lines_of_a_worker_are_json_objects_with_its_device(start: Start, resources: Resources) -> None:
    resources.settings = resources.settings.model_copy(update={"log_json": True})
    worker = await start()
    item_id = await worker.enqueue({"bad": {"type": "toy_fail"}})
    await worker.event("invocation_error", item_id=item_id)
    worker.say(kind="stop")
    await worker.wait_for_exit()
    lines = [orjson.loads(line) for line in worker.errors.splitlines() if line.startswith(b"{")]
    assert {line["device"] for line in lines} == {"cpu"}
    actions = [(line["action"], line.get("item_id")) for line in lines]
    assert [pair for pair in actions if pair[0] != "run_item"] == [
        ("run_node", item_id),
        ("queue_item_status_changed", item_id),
        ("end_worker", None),
    ]


async def test_failure_changes_the_status_before_the_error_event(start: Start) -> None:
    worker = await start()
    item_id = await worker.enqueue({"bad": {"type": "toy_fail"}})
    error = await worker.event("invocation_error", item_id=item_id)
    assert error["error_message"] == "toys break"
    changed = "queue_item_status_changed"
    expected = [
        (changed, "in_progress"),
        ("invocation_started", "bad"),
        (changed, "failed"),
        ("invocation_error", "bad"),
    ]
    assert worker.event_pairs(item_id) == expected
    item = await worker.item(item_id)
    assert (item["error_type"], item["error_message"]) == ("ValueError", "toys break")
    assert list(item["session"]["errors"].values()) == ["ValueError: toys break"]


async def test_cancel_by_message_and_by_row(start: Start, resources: Resources) -> None:
    worker = await start()
    for hint in (True, False):
        item_id = await worker.enqueue(LONG)
        await worker.event("invocation_progress", item_id=item_id)
        await service.cancel(resources, "default", item_id)
        if hint:
            worker.say(kind="cancel", item_id=item_id)
        after = await worker.enqueue(NUMBERS, *EDGES)
        await worker.event("queue_item_status_changed", item_id=after, status="completed")
        assert (await worker.item(item_id))["status"] == "canceled"
        event_names = {name for name, _ in worker.event_pairs(item_id)}
        assert event_names == {"queue_item_status_changed", "invocation_started", "invocation_progress"}


async def test_an_item_deleted_while_it_runs_is_dropped(start: Start, resources: Resources) -> None:
    worker = await start()
    item_id = await worker.enqueue(LONG)
    await worker.event("invocation_progress", item_id=item_id)
    await service.delete(resources, "default", item_id)
    after = await worker.enqueue(NUMBERS, *EDGES)
    await worker.event("queue_item_status_changed", item_id=after, status="completed")
    with pytest.raises(store.QueueItemNotFound):
        await worker.item(item_id)


async def test_paused_worker_claims_nothing(start: Start, resources: Resources) -> None:
    worker = await start()
    await processor.pause(resources)
    item_id = await worker.enqueue(NUMBERS, *EDGES)
    await worker.ask(1, "cache_status")
    assert (await worker.item(item_id))["status"] == "pending"
    await processor.resume(resources)
    worker.say(kind="wake")
    await worker.event("queue_item_status_changed", item_id=item_id, status="completed")


async def test_questions_are_answered_while_a_node_runs(start: Start) -> None:
    worker = await start()
    item_id = await worker.enqueue(NUMBERS, *EDGES)
    await worker.event("queue_item_status_changed", item_id=item_id, status="completed")
    long = await worker.enqueue(LONG)
    await worker.event("invocation_progress", item_id=long)
    status = (await worker.ask(1, "cache_status"))["body"]
    assert status == {"size": 2, "hits": 0, "misses": 3, "enabled": True, "max_size": 512}
    await worker.ask(2, "clear_invocation_cache")
    await worker.ask(3, "disable_invocation_cache")
    status = (await worker.ask(4, "cache_status"))["body"]
    assert (status["size"], status["misses"], status["enabled"]) == (0, 0, False)
    await worker.ask(5, "enable_invocation_cache")
    assert (await worker.ask(6, "cache_status"))["body"]["enabled"]
    assert (await worker.ask(7, "model_cache_stats"))["body"] is None
    assert (await worker.ask(8, "empty_model_cache"))["error"] is None
    assert "nonsense" in (await worker.ask(9, "nonsense"))["error"]
    memory = (await worker.ask(10, "device_memory"))["body"]
    assert (memory["device"], memory["kind"]) == ("cpu", "cpu")
    assert 0 < memory["used"] < memory["total"]
    assert 0 < memory["free"] < memory["total"]


@pytest.mark.parametrize("how", ["stop", "end of file", "SIGTERM"])
async def test_every_shutdown_is_clean_and_leaves_the_row_to_the_server(start: Start, how: str) -> None:
    worker = await start()
    item_id = await worker.enqueue(LONG)
    pending = await worker.enqueue(NUMBERS, *EDGES)
    await worker.event("invocation_progress", item_id=item_id)
    match how:
        case "stop":
            worker.say(kind="stop")
        case "SIGTERM":
            worker.process.terminate()
        case _:
            worker.process.stdin.close()
    assert await worker.wait_for_exit() == 0, worker.errors.decode()
    assert b"Traceback" not in worker.errors
    assert b"Timeout" not in worker.errors
    assert worker.heard[-1]["kind"] == "stopped"
    assert (await worker.item(item_id))["status"] == "in_progress"
    assert (await worker.item(pending))["status"] == "pending"


async def test_an_idle_worker_ends_at_once_and_ctrl_c_is_the_servers(start: Start) -> None:
    worker = await start()
    worker.process.send_signal(signal.SIGINT)
    await worker.ask(1, "cache_status")
    worker.process.stdin.close()
    assert await worker.wait_for_exit() == 0


@pytest.mark.parametrize("how", ["stop", "drain", "SIGTERM"])
async def test_a_joined_worker_ends_while_its_server_does_not_answer(start: Start, how: str) -> None:
    worker = await start(join={"url": "http://127.0.0.1:9", "token": "icw_x"})
    await worker.until(lambda message: message["kind"] == "call" and message["method"] == "queue.claim")
    if how == "SIGTERM":
        worker.process.terminate()
    else:
        worker.say(kind=how)
    assert await worker.wait_for_exit() == 0, worker.errors.decode()
    assert b"Timeout" not in worker.errors


async def test_node_that_ignores_cancel_is_killed(start: Start) -> None:
    worker = await start()
    item_id = await worker.enqueue(STUBBORN)
    await worker.event("invocation_progress", item_id=item_id)
    worker.process.stdin.close()
    assert await worker.wait_for_exit() == 1
    assert b"toys.py" in worker.errors
    assert (await worker.item(item_id))["status"] == "in_progress"


async def test_kill_leaves_the_row_in_progress_and_the_next_worker_continues(
    start: Start, resources: Resources
) -> None:
    worker = await start()
    item_id = await worker.enqueue(LONG)
    pending = await worker.enqueue(NUMBERS, *EDGES)
    await worker.event("invocation_progress", item_id=item_id)
    worker.process.kill()
    assert await worker.wait_for_exit() == -signal.SIGKILL
    assert (await worker.item(item_id))["status"] == "in_progress"
    assert (await worker.item(pending))["status"] == "pending"
    await claims.fail_orphans(resources, "cpu", "killed")
    assert (await worker.item(item_id))["status"] == "failed"
    second = await start()
    second.say(kind="wake")
    await second.event("queue_item_status_changed", item_id=pending, status="completed")


async def test_two_workers_share_a_queue_without_running_anything_twice(start: Start) -> None:
    workers = [await start(), await start()]
    ids = [await workers[0].enqueue(NUMBERS, *EDGES) for _ in range(20)]
    workers[1].say(kind="wake")
    for item_id in ids:
        async with asyncio.timeout(PATIENCE):
            while (await workers[0].item(item_id))["status"] != "completed":
                await asyncio.sleep(0.02)
    for item_id in ids:
        async with asyncio.timeout(PATIENCE):  # events follow the row
            while sum(len(worker.event_pairs(item_id)) for worker in workers) < 8:
                await asyncio.sleep(0.02)
    for item_id in ids:
        events_by_worker = [worker.event_pairs(item_id) for worker in workers]
        assert sorted(map(len, events_by_worker)) == [0, 8]
