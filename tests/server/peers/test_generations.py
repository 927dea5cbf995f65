"""Generations of A1111's API, whose progress every server on one database reports, and which every server stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.events import InvocationProgressEvent
from invokeclone.queue.rows import Item
from invokeclone.shims.automatic1111.jobs import Job, Jobs, progress
from invokeclone.shims.automatic1111.store import ORIGIN
from invokeclone.shims.batch_follower import BatchFollower
from invokeclone.shims.runs import ItemResult, Run, Runs
from invokeclone.users.current import SYSTEM, User

PREVIEW = "data:image/jpeg;base64,AAAA"


class GenerationServer:
    """What a server has for generations."""

    def __init__(self, resources: Resources) -> None:
        bus = resources.events
        assert isinstance(bus, Bus)
        self.resources, self.bus = resources, bus
        self.follower = BatchFollower(resources, bus)
        self.runs = Runs(resources, self.follower)
        self.jobs = Jobs(resources, self.follower, bus)

    async def state(self) -> dict[str, Any]:
        return progress(await self.jobs.find(SYSTEM), with_image=True)

    async def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while not condition(state := await self.state()):
                await asyncio.sleep(0.01)
        return state


@pytest.fixture
async def servers(pair: list[Resources]) -> AsyncIterator[list[GenerationServer]]:
    registry.discover()
    both = [GenerationServer(resources) for resources in pair]
    yield both
    for server in both:
        await server.follower.stop()


def batch(count: int) -> Batch:
    graph = {"id": "g", "nodes": {"a": {"id": "a", "type": "add"}}, "edges": []}
    return Batch.model_validate({"graph": graph, "runs": count, "origin": ORIGIN})


async def claim(server: GenerationServer) -> Item:
    """Claim an item as a worker of `server`, which reports its progress."""
    item = await claims.claim(server.resources, "cpu")
    assert item is not None
    server.bus.emit(
        InvocationProgressEvent(
            queue_id=item.queue_id,
            item_id=item.item_id,
            batch_id=item.batch_id,
            session_id=item.session_id,
            invocation={"id": "x", "type": "add"},
            invocation_source_id="a",
            message="",
            percentage=0.5,
            image={"width": 8, "height": 8, "dataURL": PREVIEW},
        )
    )
    return item


async def results(run: Run) -> list[ItemResult]:
    return [result async for result in run.results()]


async def test_progress_and_interrupt_on_another_server(servers: list[GenerationServer]) -> None:
    first, second = servers
    async with first.runs.running(batch(3), SYSTEM) as run:
        with first.jobs.track(Job(run, 20, "the client's id")) as job:
            item = await claim(second)
            states = [await server.until(lambda state: state["progress"] > 0) for server in servers]
            for state in states:
                assert (state["progress"], state["current_image"]) == (0.5 / 3, "AAAA")
                assert state["state"] == states[0]["state"]
                assert state["state"]["sampling_step"] == 10
                assert state["current_task"] == "the client's id"
            assert await second.jobs.find(User(user_id="other")) is None
            await claims.finish(second.resources, item.item_id, "completed")
            for server in servers:
                await server.until(lambda state: state["state"]["job"] == "2 out of 3")

            await claim(second)
            skipping = await second.jobs.find(SYSTEM)
            assert skipping is not None
            await skipping.skip()
            for server in servers:
                await server.until(lambda state: state["state"]["job_no"] == 2 and state["state"]["skipped"])

            interrupting = await second.jobs.find(SYSTEM)
            assert interrupting is not None
            await interrupting.interrupt()
            ended = await asyncio.wait_for(results(run), 30)
            assert [result.item.status for result in ended] == ["completed", "canceled", "canceled"]
            assert job.was_stopped_by_client
            assert job.interrupted
    for server in servers:
        await server.until(lambda state: state["state"]["job_count"] == 0)
    assert not second.follower.follows(run.key)


async def test_a_server_reads_the_rows_of_a_generation_of_which_it_had_no_event(
    servers: list[GenerationServer],
) -> None:
    first = servers[0]
    async with first.runs.running(batch(2), SYSTEM) as run:
        assert await first.jobs.find(SYSTEM) is None, "its own follower must not be replaced"
        with first.jobs.track(Job(run, 20)):
            late = GenerationServer(servers[1].resources)
            item = await claim(late)
            await claims.finish(late.resources, item.item_id, "completed")
            state = await late.state()
            assert (state["progress"], state["state"]["job"]) == (0.5, "2 out of 2")
            job = await late.jobs.find(SYSTEM)
            assert job is not None
            await job.interrupt()
            ended = await asyncio.wait_for(results(run), 30)
            assert [result.item.status for result in ended] == ["completed", "canceled"]
    await late.until(lambda state: state["state"]["job_count"] == 0)
    await late.follower.stop()


async def test_a_batch_with_the_id_of_another_users_generation_gives_no_access_to_it(
    servers: list[GenerationServer],
) -> None:
    other = User(user_id="other")
    first = servers[0]
    async with first.runs.running(batch(2), SYSTEM) as run:
        with first.jobs.track(Job(run, 20)) as job:
            copy = batch(1).model_copy(update={"batch_id": run.batch_id})
            await service.enqueue(first.resources, "default", copy, user=other)
            late = GenerationServer(servers[1].resources)  # which has had no event
            for server in (*servers, late):
                found = await server.jobs.find(other)
                assert found is not None
                assert found.run.user.user_id == "other"
                assert len(found.run.item_ids) == 1
            await claim(first)
            for server in servers:
                await server.until(lambda state: state["progress"] > 0)
            for server in (*servers, late):
                found = await server.jobs.find(other)
                assert found is not None
                assert found.run.latest is None
            await found.interrupt()
            assert not job.was_stopped_by_client
            assert (await first.state())["state"]["job_count"] == 2
    await late.follower.stop()
