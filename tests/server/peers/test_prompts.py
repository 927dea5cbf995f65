"""Prompts of ComfyUI's API, of which a client gets the frames from whichever server on one database it listens to."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.events import InvocationProgressEvent, InvocationStartedEvent
from invokeclone.queue.rows import Item
from invokeclone.shims.batch_follower import BatchFollower, BatchKey
from invokeclone.shims.comfyui import record
from invokeclone.shims.comfyui.node_types import PREFIX
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.sockets import Clients, Socket
from invokeclone.shims.comfyui.translate import NAME
from invokeclone.users.current import SYSTEM

NODE_ID = f"{PREFIX}0_add"
Frame = dict[str, Any]


class PromptServer:
    """What a server has for prompts."""

    def __init__(self, resources: Resources) -> None:
        bus = resources.events
        assert isinstance(bus, Bus)
        self.resources, self.bus = resources, bus
        self.follower = BatchFollower(resources, bus)
        self.clients = Clients(resources, self.follower, bus)

    async def listen(self, client_id: str) -> Socket:
        socket = Socket()
        await self.clients._greet(socket, SYSTEM, client_id)
        return socket

    async def post(self, prompt_id: str, client_id: str = "c") -> None:
        prompt = PromptRecord({"3": {"class_type": "KSampler", "inputs": {}}}, [], client_id)
        nodes = {
            record.NODE: {"id": record.NODE, "type": "string", "value": orjson.dumps(prompt).decode()},
            NODE_ID: {"id": NODE_ID, "type": "add"},
        }
        fields = {"batch_id": prompt_id, "origin": NAME, "destination": NAME, "graph": {"nodes": nodes}}
        self.clients.follow_prompt(prompt_id, SYSTEM, prompt, list(nodes), previews=False)
        await service.enqueue(self.resources, service.DEFAULT_QUEUE, Batch.model_validate(fields))
        self.clients.mark_enqueued(prompt_id, SYSTEM)

    async def claim(self) -> Item:
        item = await claims.claim(self.resources, "cpu")
        assert item is not None
        return item

    def report_step(self, item: Item) -> None:
        """Emit the events of a worker of this server."""
        fields = {"queue_id": item.queue_id, "item_id": item.item_id, "batch_id": item.batch_id, "session_id": "s"}
        fields |= {"invocation": {"id": "x", "type": "add", "steps": 4}, "invocation_source_id": NODE_ID}
        self.bus.emit(InvocationStartedEvent.model_validate(fields))
        self.bus.emit(InvocationProgressEvent.model_validate(fields | {"message": "", "percentage": 0.5}))


async def frames_until(socket: Socket, kind: str) -> list[Frame]:
    """Return the frames up to the first of a kind."""
    frames: list[Frame] = []
    async with asyncio.timeout(30):
        while True:
            frame = await socket.frames.get()
            assert isinstance(frame, str)
            frames.append(orjson.loads(frame))
            if frames[-1]["type"] == kind:
                return frames


def kinds(frames: list[Frame]) -> list[str]:
    """Return the types of all frames but `status`, whose number depends on how fast rows are read."""
    return [frame["type"] for frame in frames if frame["type"] != "status"]


@pytest.fixture
async def servers(pair: list[Resources]) -> AsyncIterator[list[PromptServer]]:
    registry.discover()
    both = [PromptServer(resources) for resources in pair]
    yield both
    for server in both:
        await server.follower.stop()


async def test_frames_of_a_prompt_that_was_posted_to_another_server(servers: list[PromptServer]) -> None:
    first, second = servers
    socket, other = await second.listen("c"), await second.listen("other")
    await first.post("p")
    item = await first.claim()
    async with asyncio.timeout(30):
        while not second.follower.follows(BatchKey("system", "p")):
            await asyncio.sleep(0.01)
    first.report_step(item)
    await claims.finish(first.resources, item.item_id, "completed")
    frames = await frames_until(socket, "execution_success")
    assert kinds(frames) == ["execution_start", "execution_cached", "executing", "progress", "execution_success"]
    (progress,) = [frame["data"] for frame in frames if frame["type"] == "progress"]
    assert progress == {"value": 2, "max": 4, "prompt_id": "p", "node": "3"}
    (end,) = [frame for frame in await frames_until(socket, "executing") if frame["type"] == "executing"]
    assert end["data"] == {"node": None, "prompt_id": "p"}
    await frames_until(socket, "status")
    assert not kinds([orjson.loads(str(other.frames.get_nowait())) for _ in range(other.frames.qsize())])

    again = await first.listen("c")
    (status,) = await frames_until(again, "status")
    assert status["data"]["status"]["exec_info"]["queue_remaining"] == 0, "the end of p has been reported"


async def test_the_end_of_a_prompt_that_ended_before_its_row_was_read(servers: list[PromptServer]) -> None:
    first, second = servers
    socket = await second.listen("c")
    second.bus.unsubscribe(second.follower._on_event)  # its events come late
    await first.post("p")
    item = await first.claim()
    await claims.finish(first.resources, item.item_id, "completed")
    second.follower.request_refresh()
    frames = await frames_until(socket, "execution_success")
    assert frames[-1]["data"]["prompt_id"] == "p"
    frames = await frames_until(socket, "status")
    assert frames[-1]["data"]["status"]["exec_info"]["queue_remaining"] == 0, "sent though it was 0 before"


async def test_a_prompt_is_deleted_while_its_client_listens_to_another_server(servers: list[PromptServer]) -> None:
    first, second = servers
    socket = await second.listen("c")
    await first.post("p")
    async with asyncio.timeout(30):
        while not second.follower.follows(BatchKey("system", "p")):
            await asyncio.sleep(0.01)
    await service.delete(first.resources, service.DEFAULT_QUEUE, (await first.claim()).item_id)
    await frames_until(socket, "execution_interrupted")
    async with asyncio.timeout(30):
        while first.follower.follows(BatchKey("system", "p")):
            await asyncio.sleep(0.01)
    again = await first.listen("c")
    (status,) = await frames_until(again, "status")
    assert status["data"]["status"]["exec_info"]["queue_remaining"] == 0
