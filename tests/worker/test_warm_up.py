"""While the engine is being imported, nodes that import nothing run, and all others wait for it."""

import ast
import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import invokeclone
from invokeclone.graph.invocations import registry
from invokeclone.worker import engine
from invokeclone.worker.engine import IMPORT_FREE, Engine
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.runner import SessionRunner

GRAPH = {"light": {"type": "integer", "value": 1}, "other": {"type": "toy_context"}}


class SlowImports:
    """The engine's parts, whose warm-up takes until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.imported = threading.Event()

    def part(self, _name: str) -> Any:
        return SimpleNamespace(warm_up=lambda: self.released.wait(60))

    def warm_up(self, of: Engine) -> None:
        of.warm_up(self.imported.set)


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch, tools: Tools) -> Iterator[SlowImports]:
    registry.discover()
    slow = SlowImports()
    monkeypatch.setattr(engine, "_part", slow.part)
    slow.warm_up(tools.engine)
    yield slow
    slow.released.set()
    assert slow.imported.wait(60)


def run(tools: Tools, item: Any, canceled: threading.Event) -> "asyncio.Task[Outcome]":
    return asyncio.create_task(asyncio.to_thread(SessionRunner(tools, make_context).run, item, canceled))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def at_call(toys: ModuleType, imports: SlowImports) -> Iterator[list[bool]]:
    """Whether the engine was imported at each call of the node that may import something."""
    calls: list[bool] = []
    toys.CALL.append(lambda _context: calls.append(imports.released.is_set()))
    yield calls
    toys.CALL.clear()


async def test_only_nodes_without_heavy_imports_run_before_warm_up(
    tools: Tools, make: Any, channel: Any, imports: SlowImports, at_call: list[bool]
) -> None:
    running = run(tools, make.item(GRAPH, ("light.value", "other.value")), threading.Event())
    await until(lambda: ("invocation_started", "other") in channel.node_events())
    assert ("invocation_complete", "light") in channel.node_events()
    await asyncio.sleep(0.05)
    imports.released.set()
    assert (await running).status == "completed"
    assert at_call == [True]


async def test_a_node_that_waits_for_the_engine_can_be_canceled(
    tools: Tools, make: Any, channel: Any, canceled: threading.Event, at_call: list[bool]
) -> None:
    running = run(tools, make.item({"other": {"type": "toy_context"}}), canceled)
    await until(lambda: ("invocation_started", "other") in channel.node_events())
    canceled.set()
    assert (await running).status == "canceled"
    assert at_call == []


def path_of(module: str) -> Path | None:
    path = Path(invokeclone.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def imports_of(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield what these statements import, our own modules by their full names."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if path_of(name) else node.module for name in inner)


def imports_of_functions(module: str) -> set[str]:
    """Return the modules that the functions of `module` import, and in turn what these import."""
    path = path_of(module)
    assert path
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    modules = {name for function in functions for name in imports_of(ast.walk(function))}
    waiting = list(modules)
    while waiting:
        if inner := path_of(waiting.pop()):
            new_modules = set(imports_of(ast.walk(ast.parse(inner.read_text())))) - modules
            modules |= new_modules
            waiting += new_modules
    return modules


def test_nodes_run_before_warm_up_import_at_most_numpy() -> None:
    registry.discover()
    assert {type_.__module__ for type_ in registry.nodes().values()} >= IMPORT_FREE
    foreign = {module: imports_of_functions(module) for module in IMPORT_FREE}
    heavy = {"torch", "diffusers", "transformers", "scipy", "cv2", "dynamicprompts"}
    for module, names in foreign.items():
        roots = {name.partition(".")[0] for name in names if not name.startswith("invokeclone.nodes.")}
        assert roots - {"collections", "dataclasses", "typing"} <= {"numpy", "PIL"}, (module, roots & heavy)
    assert "scipy" in {name.partition(".")[0] for name in imports_of_functions("invokeclone.nodes.images.canvas")}
