"""Calls of a joined worker: results by number, failures, and what is too large."""

import asyncio

import orjson
import pytest

from invokeclone.worker import calls
from invokeclone.worker.calls import CallRefused, CallTooLarge, ServerCallFailed, ServerCalls


async def test_results_are_matched_by_number_in_any_order() -> None:
    sent: list[bytes] = []
    server = ServerCalls(sent.append)
    first, second = (asyncio.create_task(server.call("add", {"value": value})) for value in (1, 2))
    await asyncio.sleep(0)
    messages = [orjson.loads(line) for line in sent]
    assert [(message["kind"], message["method"], message["arguments"]) for message in messages] == [
        ("call", "add", {"value": 1}),
        ("call", "add", {"value": 2}),
    ]
    server.resolve({"kind": "result", "id": messages[1]["id"], "value": {"sum": 2}})
    server.resolve({"kind": "result", "id": 99, "value": {}})
    server.resolve({"kind": "result", "id": messages[0]["id"], "value": {"sum": 1}})
    assert await asyncio.gather(first, second) == [{"sum": 1}, {"sum": 2}]


async def test_a_failure_is_one_that_the_loop_retries() -> None:
    server = ServerCalls(lambda line: server.resolve({"id": orjson.loads(line)["id"], "error": "locked"}))
    with pytest.raises(ServerCallFailed, match="locked") as raised:
        await server.call("add", {})
    assert isinstance(raised.value, OSError)


async def test_a_call_that_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_MESSAGE", 1024**2)
    sent: list[bytes] = []
    complaint = r"the call queue\.finish has 2\.0 MiB of data, and at most 1\.0 MiB .* server's machine"
    with pytest.raises(CallTooLarge, match=complaint):
        await ServerCalls(sent.append).call("queue.finish", {"session_json": "x" * 2 * 1024**2})
    assert sent == []


async def test_a_call_that_the_server_refuses_is_not_one_to_retry() -> None:
    answer = {"error": "the result of add has 80.0 MiB of data", "refused": True}
    server = ServerCalls(lambda line: server.resolve({"id": orjson.loads(line)["id"], **answer}))
    with pytest.raises(CallRefused, match=r"80\.0 MiB") as raised:
        await server.call("add", {})
    assert not isinstance(raised.value, OSError)
