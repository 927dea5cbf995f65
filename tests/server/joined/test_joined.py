"""Workers of other machines: what they may do, what they get, and what happens when they or the network fail."""

import asyncio
import os
import signal
from typing import Any

import httpx
import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from invokeclone.kit.config.settings import Settings
from invokeclone.queue import claims, service
from invokeclone.server.joined import agent as agent_module
from invokeclone.server.joined import calls, connection
from invokeclone.server.joined import service as joined_service
from invokeclone.server.joined.address import BadAddress, ServerAddress
from invokeclone.server.joined.agent import Agent, JoinRefused
from invokeclone.server.joined.protocol import PROTOCOL, Assembler, frames_of
from invokeclone.server.metrics import figures
from invokeclone.users import worker_tokens
from invokeclone.worker import metrics
from tests.server.joined.conftest import JOIN, Cluster, RawWorker, SetLease, connect_raw, until


def refused_agent(cluster: Cluster, token: str | None = None, name: str = "box") -> Agent:
    """Return an agent whose command cannot start: it must be refused before."""
    return Agent(
        ServerAddress(cluster.url), token or cluster.token, settings=cluster.settings, name=name, device="cpu",
        command=("/nonexistent",), first_delay_s=0.01,
    )  # fmt: skip


class TestRuns:
    async def test_a_joined_worker_runs_items_as_its_machines_device(self, cluster: Cluster) -> None:
        machine, _ = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        row = await cluster.row(item_id)
        assert (row["status"], row["device"], row["fence"]) == ("in_progress", "box/cpu", 1)
        assert row["worker_id"].startswith("joined:box:cpu:")
        machine.go()
        row = await cluster.ended(item_id)
        assert (row["status"], row["interruptions"]) == ("completed", 0)
        await until(lambda: len(cluster.statuses()) > 1)
        assert cluster.statuses() == ["in_progress", "completed"]
        (progress,) = [data for name, data in cluster.events if name == "invocation_progress"]
        assert (progress["message"], progress["device"]) == ("half", "box/cpu")
        assert not machine.noted("cancel")()  # the worker's own results are no cancels

    async def test_lists_and_metrics_have_the_joined_worker(self, cluster: Cluster) -> None:
        await cluster.machine()
        await until(lambda: cluster.supervisor.workers[0].metrics.series(metrics.NODE_HITS))
        async with httpx.AsyncClient(base_url=cluster.url) as client:
            response = await client.get("/api/v1/workers/")
        assert response.json() == [
            {"device": "box/cpu", "machine": "box", "connected": True, "ready": True, "item_id": None}
        ]
        assert cluster.supervisor.devices() == []  # those that settings may name
        numbers = figures.MetricValues(figures.METRICS)
        figures.add_workers(numbers, cluster.supervisor.workers)
        assert numbers.series(metrics.NODE_HITS) == {("box/cpu",): [7]}
        assert numbers.series(figures.READY) == {("box/cpu",): [1]}
        assert await cluster.supervisor.ask_all("cache_status") == [{"name": "cache_status"}]

    async def test_the_worker_gets_settings_without_secrets_and_paths(self, cluster: Cluster) -> None:
        machine, _ = await cluster.machine()
        hello = machine.hello
        assert "s3" not in str(hello)
        assert str(cluster.settings.root) not in str(hello)
        settings = Settings(**hello["settings"])
        assert settings.root == cluster.folder / "elsewhere"
        assert settings.generation_devices == "auto"  # its own
        assert hello["join"] == {"url": cluster.url, "token": cluster.token}
        cluster.supervisor.change_settings(cluster.settings.model_copy(update={"node_cache_size": 3}))
        await until(machine.noted("settings"))

    async def test_a_cancel_reaches_the_worker(self, cluster: Cluster) -> None:
        machine, _ = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        await service.cancel(cluster.resources, "default", item_id)
        await until(machine.noted("cancel", item_id))
        await until(machine.noted("finish", item_id, False))
        assert (await cluster.row(item_id))["status"] == "canceled"

    async def test_events_of_other_items_are_not_passed_on(self, cluster: Cluster, logged: list[Any]) -> None:
        machine, _ = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        machine.go()
        await cluster.ended(item_id)
        for name, line in (("invocation_complete", "of no item that it has"), ("queue_cleared", "not a worker's")):
            machine.say(kind="event", name=name, data={"item_id": item_id + 1, "user_id": "other"})
            await until(
                lambda name=name, line=line: [r for r in logged if name in r.getMessage() and line in r.getMessage()]
            )
        assert not {"invocation_complete", "queue_cleared"} & {name for name, _ in cluster.events}

    async def test_an_item_that_is_too_large_for_the_link_fails(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "MAX_MESSAGE", 1500)
        await cluster.machine()
        (item_id,) = await cluster.enqueue()
        row = await cluster.ended(item_id)
        assert (row["status"], row["error_type"]) == ("failed", "ItemTooLarge")
        assert "box/cpu" in row["error_message"]


class TestRefusals:
    async def test_a_wrong_token_is_refused_with_one_line_on_both_sides(
        self, cluster: Cluster, logged: list[Any]
    ) -> None:
        for token in ("icw_" + "a" * 43, "nonsense", await worker_tokens.create(cluster.resources.database, "x", -1)):
            with pytest.raises(JoinRefused, match="wrong, expired or revoked"):
                await refused_agent(cluster, token).run()
        lines = [record.getMessage() for record in logged if "may not join" in record.getMessage()]
        assert len(lines) == 3
        assert not any("icw_" in line for line in lines)

    def test_what_is_no_token_is_refused_before_anything_is_sent(self, cluster: Cluster) -> None:
        for token in ("icw_a\nb", "icw_ä"):
            with pytest.raises(JoinRefused, match="characters that no token has"):
                refused_agent(cluster, token)

    async def test_another_version_is_refused(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent_module, "__version__", "0.0.1")
        with pytest.raises(JoinRefused, match=r"runs invokeclone 0\.0\.1 .* install the same version"):
            await refused_agent(cluster).run()

    async def test_a_second_machine_of_the_same_name_waits(self, cluster: Cluster, logged: list[Any]) -> None:
        await cluster.machine()
        second = refused_agent(cluster)
        running = asyncio.create_task(second.run())
        await until(lambda: [r for r in logged if "give each machine its own --name" in r.getMessage()])
        second.stop()
        await running

    async def test_a_revoked_token_ends_the_connection(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joined_service, "TOKEN_CHECK_S", 0.02)
        machine, agent = await cluster.machine()
        await cluster.enqueue()
        await until(machine.noted("claim"))
        await worker_tokens.revoke(cluster.resources.database, cluster.token[:10])
        await until(machine.noted("stop"))
        assert agent._process.ended or agent._process.link

    async def test_errors_of_a_check_do_not_end_the_checks(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checks: list[None] = []

        async def fail(*_: object) -> bool:
            checks.append(None)
            raise OSError("the database is down")

        monkeypatch.setattr(joined_service, "TOKEN_CHECK_S", 0.02)
        with monkeypatch.context() as down:
            down.setattr(worker_tokens, "is_valid", fail)
            machine, _agent = await cluster.machine()
            await until(lambda: len(checks) > 2)
        await worker_tokens.revoke(cluster.resources.database, cluster.token[:10])
        await until(machine.noted("stop"))

    @pytest.mark.parametrize(
        "url", ["", "box:9090", "ftp://box", "http://", "http://[", "http://box:port", "http://a..b"]
    )
    def test_other_addresses_are_refused(self, url: str) -> None:
        with pytest.raises(BadAddress):
            _ = ServerAddress(url).socket_url

    def test_the_address_may_have_a_path_and_https(self) -> None:
        assert ServerAddress("https://box/invoke/").socket_url == "wss://box/invoke/api/v1/workers/join"


class TestRawMessages:
    @pytest.mark.parametrize(
        "message",
        [
            "nonsense",
            "[]",
            "{}",
            b"\x00",
            JOIN | {"protocol": PROTOCOL + 1},
            JOIN | {"worker_id": "server:1:cpu:1"},
            JOIN | {"device": "gpu"},
            JOIN | {"name": "a/b"},
            JOIN | {"ended": [{"worker_id": "joined:other:cpu:1", "reason": "gone"}]},
        ],
    )
    async def test_other_join_messages_are_refused(self, cluster: Cluster, message: Any) -> None:
        async with connect_raw(cluster) as socket:
            await socket.send(orjson.dumps(message).decode() if isinstance(message, dict) else message)
            refusal = orjson.loads(await socket.recv())
            assert (refusal["kind"], refusal["again"]) == ("refused", False)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert not cluster.supervisor.workers

    @pytest.mark.parametrize("frame", ["nonsense", "[]", '{"kind":"part"}', b"\x00"])
    async def test_a_frame_that_is_no_message_ends_the_connection(self, cluster: Cluster, frame: Any) -> None:
        async with RawWorker(cluster) as worker:
            await worker.socket.send(frame)
            with pytest.raises(ConnectionClosed):
                await worker.receive()

    async def test_calls_with_other_arguments_change_nothing(self, cluster: Cluster) -> None:
        (item_id,) = await cluster.enqueue()
        own = {"item_id": item_id, "fence": 1}
        async with RawWorker(cluster) as worker:
            call = worker.call
            assert "unknown method" in (await call(1, "queue.clear", {}))["error"]
            assert (await call(2, "queue.finish", own | {"status": "completed"}))["value"] == {"finished": False}
            assert (await call(3, "queue.is_running", own))["value"] == {"running": False}
            claimed = (await call(4, "queue.claim", {}))["value"]["item"]
            assert (await call(4, "queue.claim", {}))["value"]["item"] == claimed  # sent again
            assert "error" in await call(5, "queue.finish", own | {"status": "pending"})
            assert "error" in await call(6, "queue.finish", own | {"status": "completed", "user_id": "x"})
            other = own | {"status": "completed", "fence": 2}
            assert (await call(7, "queue.finish", other))["value"] == {"finished": False}
            refused = await call(8, "queue.finish", own | {"status": "completed", "session_json": ',"results":{'})
            assert (refused["error"], refused["refused"]) == ("the session of a finished item is not JSON", True)
            assert (await cluster.row(item_id))["status"] == "in_progress"
            failed = own | {"status": "failed", "error": ["ValueError", "no", "trace"]}
            assert (await call(9, "queue.finish", failed))["value"] == {"finished": True}
            repeated = await call(10, "queue.finish", failed)  # a server that was restarted has no results of calls
            assert repeated["value"] == {"finished": True}
            assert (await call(11, "queue.finish", own | {"status": "completed"}))["value"] == {"finished": False}
        assert (await cluster.row(item_id))["error_message"] == "no"


class TestConnections:
    async def test_an_item_goes_on_over_a_cut_connection(self, cluster: Cluster) -> None:
        machine, _ = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        target, cluster.proxy.target = cluster.proxy.target, None
        cluster.proxy.cut()
        await until(lambda: cluster.supervisor.workers[0].link is None)
        cluster.proxy.target = target
        await until(lambda: cluster.supervisor.workers[0].ready)
        machine.go()
        row = await cluster.ended(item_id)
        assert (row["status"], row["fence"], row["interruptions"]) == ("completed", 1, 0)
        assert len(machine.noted("claim")()) == 1
        await until(machine.noted("finish", item_id, True))

    async def test_calls_run_once_however_often_the_connection_is_cut(self, cluster: Cluster) -> None:
        machine, _ = await cluster.machine()
        machine.go()
        item_ids = await cluster.enqueue(runs=12)
        for _ in range(6):
            await asyncio.sleep(0.05)
            cluster.proxy.cut()
        for item_id in item_ids:
            assert (await cluster.ended(item_id))["status"] == "completed"
        await until(lambda: len(machine.noted("finish")()) == len(item_ids))
        claimed = [line.split()[1] for line in machine.noted("claim")()]
        assert claimed == [str(item_id) for item_id in item_ids]
        assert all(line.split()[2] == "True" for line in machine.noted("finish")())

    async def test_a_worker_that_returns_after_its_lease_is_interrupted(
        self, cluster: Cluster, set_lease: SetLease
    ) -> None:
        set_lease(1.0)
        machine, _ = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        target, cluster.proxy.target = cluster.proxy.target, None
        cluster.proxy.cut()
        row = await cluster.reaches(item_id, "pending")
        assert (row["interruptions"], row["device"], row["error_type"]) == (1, None, None)
        assert row["fence"] == 2
        await until(lambda: not cluster.supervisor.workers)
        cluster.proxy.target = target
        await until(machine.noted("interrupted", item_id))
        await until(machine.noted("finish", item_id, False))
        machine.go()
        row = await cluster.ended(item_id)
        assert (row["status"], row["fence"]) == ("completed", 3)

    async def test_a_worker_runs_on_while_the_server_restarts(self, cluster: Cluster) -> None:
        machine, _ = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        await cluster.stop()
        await claims.recover(cluster.resources)
        await cluster.start()
        await until(lambda: cluster.supervisor.workers and cluster.supervisor.workers[0].ready)
        assert cluster.supervisor.workers[0].item_id == item_id
        machine.go()
        row = await cluster.ended(item_id)
        assert (row["status"], row["fence"], row["interruptions"]) == ("completed", 1, 0)
        assert len(machine.noted("start")()) == 1


class TestDeaths:
    async def test_the_item_of_a_killed_process_returns_to_the_queue_at_once(self, cluster: Cluster) -> None:
        machine, _ = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        for number in range(1, 4):
            await until(lambda number=number: len(machine.noted("claim", item_id)()) == number)
            os.kill(machine.worker_pid, signal.SIGKILL)
        row = await cluster.ended(item_id)
        assert (row["status"], row["error_type"], row["interruptions"]) == ("failed", "WorkerDied", 3)
        assert "SIGKILL" in row["error_message"]
        assert "box" in row["error_message"]

    async def test_a_stopped_worker_returns_its_item_without_counting(self, cluster: Cluster) -> None:
        machine, agent = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        agent.stop()
        row = await cluster.reaches(item_id, "pending")
        assert (row["interruptions"], row["fence"]) == (0, 2)
        await until(machine.noted("stop"))

    async def test_a_drained_worker_ends_its_item_first(self, cluster: Cluster) -> None:
        machine, agent = await cluster.machine()
        first, second = await cluster.enqueue(2)
        await until(machine.noted("claim"))
        agent.stop(drain_s=60)
        await until(machine.noted("drain"))
        machine.go()
        assert (await cluster.ended(first))["status"] == "completed"
        await until(lambda: not cluster.supervisor.workers)
        assert (await cluster.row(second))["status"] == "pending"

    async def test_a_second_stop_interrupts_a_drained_worker(self, cluster: Cluster) -> None:
        machine, agent = await cluster.machine()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        agent.stop(drain_s=60)
        await until(machine.noted("drain"))
        agent.stop()
        row = await cluster.reaches(item_id, "pending")
        assert (row["interruptions"], row["worker_id"]) == (0, None)

    async def test_the_item_of_a_killed_machine_is_rescued(self, cluster: Cluster, set_lease: SetLease) -> None:
        set_lease(1.0)
        machine, agent_pid = await cluster.machine_process()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        os.kill(agent_pid, signal.SIGKILL)
        os.kill(machine.worker_pid, signal.SIGKILL)
        await cluster.reaches(item_id, "pending")
        other, _ = await cluster.machine("other")
        other.go()
        row = await cluster.ended(item_id)
        assert (row["status"], row["device"], row["interruptions"]) == ("completed", "other/cpu", 1)

    async def test_the_late_result_of_a_stopped_machine_is_refused(
        self, cluster: Cluster, set_lease: SetLease, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "SILENCE_S", 4.0)
        set_lease(1.0)
        machine, agent_pid = await cluster.machine_process()
        (item_id,) = await cluster.enqueue()
        await until(machine.noted("claim"))
        for pid in (machine.worker_pid, agent_pid):
            os.kill(pid, signal.SIGSTOP)
        await cluster.reaches(item_id, "pending")
        other, _ = await cluster.machine("other")
        await until(other.noted("claim", item_id))
        machine.go()
        for pid in (agent_pid, machine.worker_pid):
            os.kill(pid, signal.SIGCONT)
        await until(machine.noted("finish", item_id, False))
        row = await cluster.row(item_id)
        assert (row["status"], row["device"]) == ("in_progress", "other/cpu")
        other.go()
        assert (await cluster.ended(item_id))["status"] == "completed"


class TestFrames:
    @pytest.mark.parametrize("text", ["", "a", 'é"\\' * 5000, "\x00" * 3000, "𝄞" * 7000])
    def test_messages_of_any_text_pass_in_small_frames(self, text: str) -> None:
        assembler = Assembler()
        message = {"kind": "call", "arguments": {"text": text}}
        frames = list(frames_of(orjson.dumps(message), 2048))
        assert all(len(frame.encode()) <= 2048 for frame in frames)
        results = [assembler.add(frame) for frame in frames]
        assert results[-1] == message
        assert results[:-1] == [None] * (len(frames) - 1)

    def test_whole_messages_may_come_between_the_parts_of_another(self) -> None:
        """So an agent shows that it is alive while it sends a large message over a slow connection."""
        assembler = Assembler()
        message = {"kind": "call", "arguments": {"text": "x" * 5000}}
        first, *rest = frames_of(orjson.dumps(message), 2048)
        assert assembler.add(first) is None
        assert assembler.add('{"kind":"alive"}') == {"kind": "alive"}
        assert [assembler.add(frame) for frame in rest][-1] == message
