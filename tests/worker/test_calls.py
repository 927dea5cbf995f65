"""Calls of a joined worker: results by number, failures, and what is too large."""

import asyncio
from typing import Any

import orjson
import pytest

from invokeclone.worker import calls
from invokeclone.worker.backend import remote
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


async def test_an_operation_that_the_server_refuses_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node fails with the server's message; only a lost connection is a reason to ask again."""
    monkeypatch.setattr(remote, "RETRY_S", (0.0, 0.0))
    asked: list[str] = []

    async def refuse(method: str, _message: dict[str, Any]) -> dict[str, Any]:
        asked.append(method)
        raise CallRefused("the result of board_image_names has 80.0 MiB of data")

    async def lose(method: str, _message: dict[str, Any]) -> dict[str, Any]:
        asked.append(method)
        raise ServerCallFailed("lost")

    with pytest.raises(CallRefused, match="board_image_names"):
        await remote.Operations(refuse).request("list_active", item_ids=[1])
    assert len(asked) == 1
    with pytest.raises(ServerCallFailed):
        await remote.Operations(lose).request("list_active", item_ids=[1])
    assert len(asked) == 4
