"""A worker's parts with fakes around them, and toy nodes."""

import asyncio
import importlib.util
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from PIL import Image

from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.session.graph import Graph
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, SubModelType
from invokeclone.kit.resources import Resources
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.cache import InvocationCache
from invokeclone.worker.engine import Engine
from invokeclone.worker.interfaces.context import Context, make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.recent_images import RecentImages
from invokeclone.worker.runner import SessionRunner
from invokeclone.worker.tensors import TensorStore
from tests.worker.joined import Claims, Link

TOYS = Path(__file__).parent / "toys.py"


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """Return the module of toy nodes, loaded once."""
    if "toys" not in sys.modules:
        spec = importlib.util.spec_from_file_location("toys", TOYS)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["toys"] = module
        spec.loader.exec_module(module)
    return sys.modules["toys"]


class FakeChannel:
    """Keeps the events that would go to the server."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, data: bytes, *, droppable: bool = False) -> None:
        self.sent.append((name, orjson.loads(data)))

    def names(self) -> list[str]:
        return [name for name, _ in self.sent]

    def node_events(self) -> list[tuple[str, str | None]]:
        """Return (event, source node) pairs."""
        return [(name, data.get("invocation_source_id")) for name, data in self.sent]


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
async def tools(resources: Resources, channel: FakeChannel, tmp_path: Path) -> Tools:
    return Tools(
        resources=resources,
        loop=asyncio.get_running_loop(),
        device="cpu",
        channel=channel,
        cache=InvocationCache(10),
        tensors=TensorStore(tmp_path / "tensors", 10_000),
        images=RecentImages(100_000),
        engine=Engine(resources.settings, "cpu"),
    )


@pytest.fixture
def claims(resources: Resources) -> Claims:
    return Claims(resources.database)


@pytest.fixture
def link(resources: Resources) -> Link:
    return Link(resources)


class Make:
    """Builds graphs and items."""

    @staticmethod
    def edge(source: str, destination: str) -> dict[str, Any]:
        """`edge("a.value", "b.a")`."""
        ends = [dict(zip(("node_id", "field"), end.split("."), strict=True)) for end in (source, destination)]
        return {"source": ends[0], "destination": ends[1]}

    def graph(self, nodes: dict[str, dict[str, Any]], *edges: tuple[str, str]) -> dict[str, Any]:
        """Return a graph of nodes by id."""
        graph_nodes = {name: {"id": name, **fields} for name, fields in nodes.items()}
        return {"id": "g", "nodes": graph_nodes, "edges": [self.edge(*edge) for edge in edges]}

    def item(self, nodes: dict[str, dict[str, Any]], *edges: tuple[str, str], **fields: Any) -> ClaimedItem:
        """Return a claimed item whose session is about to begin."""
        state = GraphExecutionState.start(Graph.model_validate(self.graph(nodes, *edges)))
        defaults: dict[str, Any] = {
            "item_id": 1,
            "queue_id": "default",
            "batch_id": "b",
            "session_id": state.id,
            "status": "in_progress",
            "status_sequence": 1,
            "priority": 0,
            "origin": "generate",
            "destination": None,
            "user_id": "system",
            "device": "cpu",
            "error_type": None,
            "error_message": None,
            "error_traceback": None,
            "created_at": "",
            "updated_at": "",
            "started_at": "",
            "completed_at": None,
            "session": state.to_json(),
            "workflow": None,
            "field_values": None,
            "retried_from_item_id": None,
        }
        return ClaimedItem(**(defaults | fields))


@pytest.fixture
def make(toys: ModuleType) -> Make:
    return Make()


@pytest.fixture
def canceled() -> threading.Event:
    return threading.Event()


@pytest.fixture
def name() -> Callable[[], str]:
    return lambda: str(uuid.uuid4())


Ask = Callable[..., Any]


class FakeEngine:
    """Loads words."""

    def wait_until_imported(self) -> None:
        """Return at once: nothing is imported."""

    def watch_modules(self) -> None:
        """No module is run."""

    def unwatch_modules(self) -> None:
        """No module is run."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def load(self, config: Any, path: Path, submodel: SubModelType | None) -> str:
        self.asked.append((config.key, path, submodel))
        return f"loaded {config.name}"

    def load_file(self, path: Path, loader: Any) -> Any:
        return loader(path) if loader else path

    def preview(self, latents: Any, base: BaseModelType) -> tuple[Image.Image, int]:
        self.asked.append((latents, base))
        return Image.new("RGB", (16, 8), "red"), 16 if base is BaseModelType.Wan else 8

    def new_stats(self) -> None:
        pass

    def stats(self) -> None:
        return None


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def runs(tools: Tools, engine: FakeEngine) -> Tools:
    """Return the tools of the worker that runs the nodes of `ask`; a module may replace it."""
    return replace(tools, engine=engine)  # type: ignore[arg-type]


@pytest.fixture
def ask(runs: Tools, claims: Claims, make: Any, toys: ModuleType, canceled: threading.Event) -> Ask:
    """Run a node that calls a function with its context, and return what that returned or raise what it raised."""

    async def act(question: Callable[[Context], Any], item: dict[str, Any] | None = None, **fields: Any) -> Any:
        answers: list[Any] = []
        toys.CALL.append(lambda context: answers.append(question(context)))
        claimed_item = await claims.add(make.item({"ask": {"type": "toy_context", **fields}}, **(item or {})))
        runner = SessionRunner(runs, make_context)
        try:
            outcome: Outcome = await asyncio.to_thread(runner.run, claimed_item, canceled)
        finally:
            toys.CALL.clear()
        if outcome.error:
            raise AssertionError(outcome.error.error_traceback)
        return answers[0]

    return act
