"""A worker that does not follow the protocol: one line or the end of its connection, and its items go on elsewhere."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest
from websockets.frames import Opcode

from invokeclone.kit.workers import parse_replies
from invokeclone.queue import claims
from invokeclone.server.info import InvocationCacheStatus
from invokeclone.server.joined import connection
from invokeclone.users import worker_tokens
from tests.server.joined.conftest import JOIN, Cluster, RawWorker, connect_raw, until

NESTED, NESTED_DEEP = b"[" * 400 + b"]" * 400, b"[" * 2000 + b"]" * 2000
"""More levels than orjson writes, and more than it reads."""


def event(claim: dict[str, Any], name: str = "invocation_complete", **fields: Any) -> dict[str, Any]:
    data = {field: value for field, value in claim.items() if field != "fence"}
    return {"kind": "event", "name": name, "data": data | fields}


CLOSING: dict[str, Any] = {
    "infinity": b'{"kind":"stopping","item_id":1e400}',
    "not a number": b'{"kind":NaN}',
    "list for a number": {"kind": "stopping", "item_id": [1]},
    "many digits": {"kind": "heartbeat", "received": "9" * 5000},
    "reply to a list": {"kind": "reply", "id": [5]},
    "surrogate": b'{"kind":"call","id":3,"method":"\\ud800","arguments":{}}',
    "too deep": b'{"kind":"call","id":3,"method":"x","arguments":{"a":' + NESTED_DEEP + b"}}",
    "no text": b'{"kind":"part"}',
    "no object": b"[]",
    "number": b"5",
    "nothing": b"",
}
REPORTED: dict[str, Any] = {
    "unknown kind": {"kind": "x"},
    "kind is a list": {"kind": [1]},
    "second join": JOIN,
    "call without arguments": {"kind": "call", "id": 1, "method": "queue.claim"},
    "number over 64 bits": b'{"kind":"call","id":123456789012345678901234567890,"method":"x","arguments":{}}',
    "part of a part": {"kind": "end", "data": '{"kind":"part","data":"x"}'},
    "ready for nothing": {"kind": "ready"},
    "ready for a long device": {"kind": "ready", "device": "x" * 10_000},
    "event of no item": event({"user_id": "system"}),
    "status by event": event({"user_id": "system"}, "queue_item_status_changed", status="completed"),
}


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines(logged: list[logging.LogRecord]) -> Iterator[Callable[[str], list[str]]]:
    """Return what gives the logged lines with a text; fails the test if one has a traceback or a line break."""
    server, errors = logging.getLogger("uvicorn.error"), _Records()
    server.addHandler(errors)
    yield lambda text: [line for record in logged if text in (line := record.getMessage())]
    server.removeHandler(errors)
    records = [*logged, *errors.records]
    assert [record.getMessage() for record in records if record.exc_info or "\n" in record.getMessage()] == []


async def send(worker: RawWorker, message: Any) -> None:
    if isinstance(message, bytes):
        await worker.socket.send(message.decode())
    else:
        await worker.send(message)


@pytest.mark.parametrize("message", CLOSING.values(), ids=CLOSING)
async def test_what_cannot_be_read_ends_the_connection(cluster: Cluster, lines: Any, message: Any) -> None:
    async with RawWorker(cluster) as worker:
        await send(worker, message)
        await worker.closed()
    assert len(lines("raw/cpu sent an invalid message")) == 1


async def test_what_has_no_meaning_is_reported(cluster: Cluster, lines: Any) -> None:
    await cluster.enqueue()
    async with RawWorker(cluster) as worker:
        claim = await worker.claim()
        messages = [*REPORTED.values(), orjson.dumps(event(claim))[:-2] + b',"x":' + NESTED + b"}}"]
        for message in messages:
            await send(worker, message)
        assert (await worker.call(9, "queue.is_running", {"item_id": claim["item_id"], "fence": 1}))["value"]["running"]
    assert len(lines("the worker for raw/cpu sent ")) == len(messages)
    assert "invocation_complete" not in [name for name, _ in cluster.events]


async def test_one_that_goes_on_with_it_is_disconnected(
    cluster: Cluster, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_REFUSED_MESSAGES", 3)
    async with RawWorker(cluster) as worker:
        for _ in range(3):
            await worker.send({"kind": "x"})
        await worker.closed()
    assert len(lines("sent an unknown message")) == 3


async def test_texts_of_a_worker_are_one_line_of_the_log(cluster: Cluster, lines: Any) -> None:
    (item_id,) = await cluster.enqueue()
    async with RawWorker(cluster) as worker:
        await worker.claim()
        await worker.send({"kind": "stopped", "reason": "a\nWARNING forged\n" * 10_000})
        await worker.send({"kind": "stopped", "reason": [1]})
        await worker.send({"kind": "ended", "reason": "b\nWARNING forged"})
        await worker.closed()
    assert (await cluster.reaches(item_id, "pending"))["interruptions"] == 1
    assert all(len(line) < 1000 for line in lines("forged"))
    assert len(lines("forged")) == 3
    async with connect_raw(cluster) as socket:
        await socket.send(orjson.dumps(JOIN | {"version": "1\nWARNING forged"}).decode())
        assert orjson.loads(await socket.recv())["kind"] == "refused"


@pytest.mark.parametrize(
    ("opcode", "parts"),
    [
        (Opcode.TEXT, [b"\xff\xfe"]),
        (Opcode.TEXT, [b"\xe2\x82", b"\xff"]),
        (Opcode.CONT, [b"x"]),
        (Opcode.PING, [b"x" * 200]),
    ],
)
async def test_frames_that_are_no_websocket_frames(
    cluster: Cluster, lines: Any, opcode: Opcode, parts: list[bytes]
) -> None:
    async with RawWorker(cluster) as worker:
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            first = (0x80 if is_last else 0) | (opcode if number == 0 else Opcode.CONT)
            length = bytes([0x80 | len(part)]) if len(part) < 126 else bytes([0xFE]) + len(part).to_bytes(2, "big")
            worker.socket.transport.write(bytes([first]) + length + b"\0\0\0\0" + part)
        await worker.closed()
    assert lines("raw/cpu is disconnected")


async def test_a_worker_holds_one_item(cluster: Cluster, lines: Any) -> None:
    """The one that it does not end returns to the queue when it claims another, for other workers."""
    first, second = await cluster.enqueue(2)
    async with RawWorker(cluster) as worker:
        await asyncio.gather(*(worker.start_call(number, "queue.claim", {}, oldest=1) for number in range(1, 3)))
        results = [(await worker.receive())["value"]["item"] for _ in range(2)]
        assert [(item["item_id"], item["fence"]) for item in results] == [(first, 1), (first, 3)]
        held = {"item_id": first, "fence": 1}
        assert not (await worker.call(3, "queue.finish", held | {"status": "completed"}))["value"]["finished"]
        assert (await cluster.row(second))["status"] == "pending"
    assert len(lines("item 1 is interrupted: raw/cpu has claimed another item meanwhile")) == 1


async def test_a_claim_that_failed_after_it_was_stored_is_handed_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claims.claim

    async def fail(*arguments: Any, **options: Any) -> None:
        await claim(*arguments, **options)
        monkeypatch.setattr(claims, "claim", claim)
        raise OSError("the connection to the database is lost")

    (item_id,) = await cluster.enqueue()
    monkeypatch.setattr(claims, "claim", fail)
    async with RawWorker(cluster) as worker:
        assert not (await worker.call(1, "queue.claim", {}))["refused"]
        item = (await worker.call(2, "queue.claim", {}))["value"]["item"]
    assert (item["item_id"], item["fence"]) == (item_id, 1)


async def test_the_end_of_a_worker_with_another_token_is_not_believed(cluster: Cluster) -> None:
    (item_id,) = await cluster.enqueue()
    other = await worker_tokens.create(cluster.resources.database, "other")
    async with RawWorker(cluster, "victim") as victim:
        await victim.claim()
        ended = {"worker_id": "joined:victim:cpu:1", "reason": "gone"}
        async with connect_raw(cluster, other) as socket:
            join = {"name": "victim", "worker_id": "joined:victim:cpu:2", "device": "cuda:1", "ended": [ended]}
            await socket.send(orjson.dumps(JOIN | join).decode())
            assert "another token" in orjson.loads(await socket.recv())["reason"]
        assert (await cluster.row(item_id))["status"] == "in_progress"


async def test_replies_of_another_form_are_left_out(cluster: Cluster, lines: Any) -> None:
    async with RawWorker(cluster) as worker:
        await worker.send({"kind": "ready", "device": "cpu", "devices": 5})
        await until(lambda: cluster.supervisor.workers[0].ready)
        asking = asyncio.create_task(cluster.supervisor.ask_all("cache_status"))
        request = await worker.receive()
        await worker.send({"kind": "reply", "id": request["id"] + 1, "body": {}})
        await worker.send({"kind": "reply", "id": request["id"], "body": {"size": "x"}})
        assert parse_replies(InvocationCacheStatus, await asking) == []
    assert len(lines("no InvocationCacheStatus")) == 1


async def test_joined_workers_are_limited(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from invokeclone.server.joined import service as joined_service

    monkeypatch.setattr(joined_service, "MAX_WORKERS", 1)
    async with RawWorker(cluster, "one"), connect_raw(cluster) as socket:
        await socket.send(orjson.dumps(JOIN).decode())
        refusal = orjson.loads(await socket.recv())
    assert (refusal["reason"], refusal["again"]) == ("1 workers have joined already", True)
    async with httpx.AsyncClient(base_url=cluster.url) as client:
        assert len((await client.get("/api/v1/workers/")).json()) == 1
