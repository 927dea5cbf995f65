"""Messages that are large, receivers that are slow or do not read, and a token that is revoked meanwhile."""

import asyncio
from typing import Any

import orjson
import pytest

from invokeclone.server.joined import calls, connection, link, protocol
from invokeclone.server.joined import service as joined_service
from invokeclone.server.joined.connection import JoinedWorker
from invokeclone.server.joined.process import AgentProcess
from invokeclone.server.joined.protocol import Assembler, MessageTooLong
from invokeclone.server.joined.send_queue import SendQueue
from invokeclone.users import worker_tokens
from tests.server.joined.conftest import Cluster, RawWorker, until

MIB = 1024 * 1024


async def give(_resources: Any, _worker_id: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return as many bytes as an operation asks for, or lists in lists."""
    if method == "nested":
        value: Any = []
        for _ in range(arguments["depth"]):
            value = [value]
        return {"result": value}
    if method == "fail":
        raise {"OSError": OSError, "ValueError": ValueError}[arguments["kind"]]("no")
    if method == "slow":
        await asyncio.sleep(0.2)
    return {"result": "x" * arguments["size"]}


@pytest.fixture
async def serving(cluster: Cluster) -> Cluster:
    """Return a server with operations that return what the test says."""
    await cluster.stop()
    cluster.dispatch = give
    await cluster.start()
    return cluster


class TestResults:
    async def test_a_result_that_is_too_large_is_an_error_of_its_call(
        self, serving: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "MAX_MESSAGE", MIB)
        async with RawWorker(serving) as worker:
            result = await worker.call(1, "board_image_names", {"size": 2 * MIB})
            assert result["refused"]
            assert "the result of board_image_names has 2.0 MiB of data, and at most 60.0 MiB" in result["error"]
            assert "raw/cpu" in result["error"]
            assert (await worker.call(2, "small", {"size": 3}))["value"] == {"result": "xxx"}

    async def test_a_result_over_the_limit_of_a_websocket_is_no_end_of_the_connection(self, serving: Cluster) -> None:
        """The machine's worker process asks for it; it gets the error, and runs on over the same connection."""
        machine, _ = await serving.machine()
        machine.say(kind="call", id=-1, method="x", arguments={"size": 65 * MIB})
        await until(machine.noted("other", -1, "refused"))
        machine.say(kind="call", id=-2, method="x", arguments={"size": 20 * MIB})
        await until(machine.noted("other", -2, "value"))
        (item_id,) = await serving.enqueue()
        machine.go()
        assert (await serving.ended(item_id))["status"] == "completed"
        assert serving.supervisor.workers[0].link is not None
        assert [name for name, _ in serving.events].count("invocation_progress") == 1

    async def test_results_that_cannot_be_written_or_failed_are_final_unless_the_reason_may_pass(
        self, serving: Cluster
    ) -> None:
        async with RawWorker(serving) as worker:
            assert (await worker.call(1, "nested", {"depth": 100}))["value"]
            assert (await worker.call(2, "nested", {"depth": 900}))["refused"]
            assert (await worker.call(3, "fail", {"kind": "ValueError"}))["refused"]
            assert not (await worker.call(4, "fail", {"kind": "OSError"}))["refused"]

    async def test_results_that_are_kept_are_limited(self, serving: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calls, "MAX_KEPT_BYTES", 3 * MIB)
        async with RawWorker(serving) as worker:
            for number in range(1, 8):
                await worker.start_call(number, "x", {"size": MIB}, oldest=0)
                assert (await worker.receive())["id"] == number
            (joined,) = serving.joined._joined.values()
            assert len(joined.calls._runs) <= 4


@pytest.fixture
def is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no silence end a connection."""
    for module, name in ((connection, "SILENCE_S"), (protocol, "SILENCE_S"), (link, "STALL_S")):
        monkeypatch.setattr(module, name, 1000.0)


@pytest.mark.usefixtures("is_patient")
class TestReceivers:
    async def test_large_results_reach_a_reader_in_small_frames(self, serving: Cluster) -> None:
        """More than 64 MiB at once, which an agent asked for, and an unrequested message behind them."""
        async with RawWorker(serving) as worker:
            for number in (1, 2, 3):
                await worker.start_call(number, "x", {"size": 30 * MIB})
            serving.supervisor.hints.wake()
            seen: dict[Any, int] = {}
            while len(seen) < 4:
                message = await worker.receive()
                seen[message.get("id", message["kind"])] = len(str(message.get("value")))
            assert {number for number in seen if seen[number] > 30 * MIB} == {1, 2, 3}

    async def test_one_that_takes_no_frame_is_cut_off(self, serving: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link, "STALL_S", 0.1)
        async with RawWorker(serving, deaf=True) as worker:
            await worker.start_call(1, "x", {"size": 30 * MIB})
            await until(lambda: serving.supervisor.workers[0].link is None)

    async def test_one_that_does_not_read_hints_is_cut_off(
        self, serving: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "UNREAD_LIMIT", 2 * MIB)
        async with RawWorker(serving, deaf=True):
            names = ["x" * MIB]
            for _ in range(100):
                serving.supervisor.hints.apply({"kind": "images_deleted", "names": names})
                await asyncio.sleep(0)
            await until(lambda: serving.supervisor.workers[0].link is None)

    async def test_a_large_message_in_transit_is_no_reason_to_cut_off(
        self, serving: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "UNREAD_LIMIT", 2 * MIB)
        async with RawWorker(serving) as worker:
            serving.supervisor.hints.apply({"kind": "images_deleted", "names": ["x" * 20 * MIB]})
            serving.supervisor.hints.wake()
            assert (await worker.receive())["kind"] == "images_deleted"
            assert (await worker.receive())["kind"] == "wake"

    async def test_calls_of_many_bytes_wait_for_earlier_ones(
        self, serving: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "MAX_OPEN_BYTES", MIB)
        sizes: list[int] = []
        start = JoinedWorker.start_call

        def note(joined: JoinedWorker, *arguments: Any) -> None:
            start(joined, *arguments)
            sizes.append(joined.open_bytes)

        monkeypatch.setattr(JoinedWorker, "start_call", note)
        async with RawWorker(serving) as worker:
            for number in range(1, 4):
                await worker.start_call(number, "slow", {"size": 1, "rest": "x" * MIB}, oldest=1)
            assert {(await worker.receive())["id"] for _ in range(1, 4)} == {1, 2, 3}
        assert len(sizes) == 3
        assert max(sizes) < 2 * MIB


@pytest.mark.usefixtures("is_patient")
class TestRevocation:
    async def test_one_that_does_not_read_is_cut_off_at_once(
        self, serving: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(joined_service, "TOKEN_CHECK_S", 0.02)
        (item_id,) = await serving.enqueue()
        async with RawWorker(serving, deaf=True) as worker:
            await worker.start_call(1, "queue.claim", {})
            await serving.reaches(item_id, "in_progress")
            await worker.start_call(2, "x", {"size": 30 * MIB})
            (joined,) = serving.joined._joined.values()
            await until(lambda: joined.link is not None and joined.link._unsent > 20 * MIB)
            await worker_tokens.revoke(serving.resources.database, serving.token[:10])
            row = await serving.reaches(item_id, "pending")
            assert (row["fence"], row["worker_id"], row["interruptions"]) == (2, None, 0)
            await until(lambda: not serving.supervisor.workers)
            await until(lambda: not serving.connections)

    async def test_one_that_reads_gets_the_reason(self, serving: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joined_service, "TOKEN_CHECK_S", 0.02)
        async with RawWorker(serving) as worker:
            await worker_tokens.revoke(serving.resources.database, serving.token[:10])
            assert await worker.closed() == protocol.REFUSED

    async def test_messages_are_answered_while_a_check_hangs(
        self, serving: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checking, going_on = asyncio.Event(), asyncio.Event()
        is_valid = worker_tokens.is_valid

        async def hang(*arguments: Any) -> bool:
            checking.set()
            await going_on.wait()
            return await is_valid(*arguments)

        monkeypatch.setattr(worker_tokens, "is_valid", hang)
        async with RawWorker(serving) as worker:
            await worker.start_call(1, "x", {"size": 1})
            await checking.wait()
            await worker.send({"kind": "alive"})
            assert (await worker.receive())["kind"] == "alive"
            going_on.set()
            assert (await worker.receive())["value"] == {"result": "x"}

    async def test_no_call_is_run_after_it(self, serving: Cluster) -> None:
        (item_id,) = await serving.enqueue()
        async with RawWorker(serving) as worker:
            fields = await worker.claim()
            await worker_tokens.revoke(serving.resources.database, serving.token[:10])
            held = {"item_id": item_id, "fence": fields["fence"]}
            await worker.start_call(2, "queue.finish", held | {"status": "completed"})
            assert await worker.closed() == protocol.REFUSED
        await serving.reaches(item_id, "pending")


def test_the_size_of_a_message_is_that_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MESSAGE_LIMIT", 1000)
    assembler = Assembler()
    with pytest.raises(MessageTooLong):
        for _ in range(10):
            assembler.add(orjson.dumps({"kind": "part", "data": "𝄞" * 50}))


class TestSendQueue:
    @staticmethod
    async def drain(queue: SendQueue) -> list[bytes]:
        lines = []
        while (message := await queue.first()) is not None:
            lines.append(message[1])
            queue.remove(*message)
        return lines

    async def test_only_the_newest_progress_waits_and_all_else_stays_in_order(self) -> None:
        queue = SendQueue()
        for number in range(1000):
            queue.add(b"p%d" % number + b"x" * 1000, "progress")
            if number % 100 == 0:
                queue.add(b"e%d" % number)
        assert queue.size < 2000
        queue.close()
        lines = await self.drain(queue)
        assert [line[:4].rstrip(b"x") for line in lines] == [
            *(b"e%d" % number for number in range(0, 1000, 100)),
            b"p999",
        ]
        assert queue.size == 0

    async def test_a_newer_one_does_not_replace_one_in_transit(self) -> None:
        queue = SendQueue()
        queue.add(b"old", "progress")
        message = await queue.first()
        assert message is not None
        queue.add(b"new", "progress")
        queue.remove(*message)
        queue.close()
        assert await self.drain(queue) == [b"new"]

    async def test_a_process_repeats_its_open_calls_and_no_progress_of_before(self) -> None:
        process = AgentProcess("joined:box:cpu:1")
        process.receive({"kind": "ready", "device": "cpu"})
        progress = {"kind": "event", "name": "invocation_progress"}
        for number in range(100):
            process.receive({"kind": "heartbeat", "received": number})
            process.receive({**progress, "data": {"message": number}})
        process.receive({"kind": "call", "id": 1, "method": "a"})
        process.receive({"kind": "event", "name": "invocation_complete"})
        process.receive({"kind": "call", "id": 2, "method": "b"})
        for _ in range(3):  # nothing of it is sent
            process.repeat()
        process.end("killed")
        messages = [orjson.loads(line) for line in await self.drain(process.queue)]
        assert messages == [
            {"kind": "ready", "device": "cpu"},
            {"kind": "heartbeat", "received": 99},
            {**progress, "data": {"message": 99}},
            {"kind": "event", "name": "invocation_complete"},
            {"kind": "call", "id": 1, "method": "a", "oldest": 1},
            {"kind": "call", "id": 2, "method": "b", "oldest": 1},
            {"kind": "ended", "reason": "killed"},
        ]
