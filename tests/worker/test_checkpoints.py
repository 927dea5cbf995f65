"""Where a canceled node stops: calls of the context, modules of a network, tensors of a load, locks; and nowhere else."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from invokeclone.engine import checkpoints
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import loaders
from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.layers import LoRA
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.graph.checkpoints import acquire_lock, checkpoint, watch_cancellation
from invokeclone.graph.context import CanceledException
from invokeclone.kit.config.settings import Settings
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.runner import SessionRunner


class Cancel(nn.Module):
    """Cancels the item when it is run, as if the user did so then."""

    def __init__(self, canceled: threading.Event) -> None:
        super().__init__()
        self._canceled = canceled

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        self._canceled.set()
        checkpoints.watch_modules()
        return value


class Count(nn.Module):
    """Counts how often it is run."""

    runs = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return value


@pytest.fixture(autouse=True)
def _leave_no_hooks() -> Any:
    yield
    checkpoints.unwatch_modules()


def test_a_network_stops_before_the_next_module(canceled: threading.Event) -> None:
    last_module = Count()
    network = nn.Sequential(Count(), Cancel(canceled), last_module)
    callbacks: list[int] = []
    with watch_cancellation(canceled, lambda: callbacks.append(1)), pytest.raises(CanceledException):
        network(torch.zeros(1))
    assert (last_module.runs, callbacks) == (0, [1])
    network(torch.zeros(1))
    assert last_module.runs == 1, "a thread that runs no node is not stopped"
    checkpoints.unwatch_modules()
    with watch_cancellation(canceled):
        network[2](torch.zeros(1))
    assert last_module.runs == 2


def test_canceled_load_stops_at_the_next_tensor_and_is_not_cached(
    canceled: threading.Event, settings: Settings, tmp_path: Path
) -> None:
    cache = ModelCache(settings, "cpu")
    layers: list[int] = []

    def load(_path: Path) -> nn.Module:
        for number in range(5):
            layers.append(number)
            torch.zeros(2)
            if number == 2:
                canceled.set()
        return nn.Linear(2, 2)

    with watch_cancellation(canceled), pytest.raises(CanceledException):
        loaders.load_file(cache, tmp_path, load)
    assert layers == [0, 1, 2, 3]
    assert cache.keys() == []
    canceled.clear()
    with watch_cancellation(canceled):
        loaded = loaders.load_file(cache, tmp_path, lambda _path: nn.Linear(2, 2))
    canceled.set()
    with watch_cancellation(canceled), pytest.raises(CanceledException), loaded as model:
        checkpoint()
    assert model is loaded.model


def test_files_are_read_tensor_by_tensor(canceled: threading.Event, settings: Settings, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "model.safetensors"
    save_file({f"layer{number}": torch.zeros(4) for number in range(20)}, file)
    passed: list[int] = []

    class Countdown(threading.Event):
        def is_set(self) -> bool:
            passed.append(1)
            return len(passed) > 15

    with watch_cancellation(Countdown()), pytest.raises(CanceledException):
        loaders.load_file(ModelCache(settings, "cpu"), file, None)


def test_canceled_loras_stop_between_layers_and_are_removed(canceled: threading.Event) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = [layer.weight for layer in network]
    layers = {str(index): LoRA(torch.ones(4, 1), torch.ones(1, 4), None, 1.0) for index in range(2)}
    canceled.set()
    patch = LoRAPatch("style", layers, 1.0)
    with (
        watch_cancellation(canceled),
        pytest.raises(CanceledException),
        apply_loras(network, [patch], torch.device("cpu")),
    ):
        raise AssertionError("not reached")
    assert [layer.weight for layer in network] == before


def test_cancel_ends_waiting_for_a_lock(canceled: threading.Event) -> None:
    lock = threading.RLock()
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    canceled.set()
    with watch_cancellation(canceled), pytest.raises(CanceledException), acquire_lock(lock):
        raise AssertionError("not reached")
    release.set()
    holder.join()
    with watch_cancellation(canceled), acquire_lock(lock):
        pass


CALLS: dict[str, Callable[[Any], Any]] = {
    "progress": lambda context: context.util.signal_progress("x"),
    "images.save": lambda context: context.images.save(None),
    "images.get_dto": lambda context: context.images.get_dto("x"),
    "images.get_pil": lambda context: context.images.get_pil("x"),
    "tensors.save": lambda context: context.tensors.save(None),
    "tensors.load": lambda context: context.tensors.load("x"),
    "conditioning.save": lambda context: context.conditioning.save(None),
    "conditioning.load": lambda context: context.conditioning.load("x"),
    "models.exists": lambda context: context.models.exists("x"),
    "models.load": lambda context: context.models.load("x"),
    "models.search": lambda context: context.models.search_by_attrs(name="x"),
    "models.load_local_model": lambda context: context.models.load_local_model(Path("x")),
    "models.download": lambda context: context.models.download_and_cache_model("https://example.com/x"),
    "boards.create": lambda context: context.boards.create("x"),
    "presets": lambda context: context.presets.style_preset("x"),
}


class Bench:
    """Runs one node that calls a function with its context."""

    def __init__(self, tools: Tools, make: Any, toys: ModuleType, canceled: threading.Event) -> None:
        self.tools, self.make, self.toys, self.canceled = tools, make, toys, canceled
        self.stopping: list[int] = []

    async def run(self, call: Callable[[Any], Any]) -> Outcome:
        import asyncio

        self.toys.CALL.append(call)
        try:
            item = self.make.item({"a": {"type": "toy_context"}})
            runner = SessionRunner(self.tools, make_context, self.stopping.append)
            return await asyncio.to_thread(runner.run, item, self.canceled)
        finally:
            self.toys.CALL.clear()


@pytest.fixture
def bench(tools: Tools, make: Any, toys: ModuleType, canceled: threading.Event) -> Bench:
    return Bench(tools, make, toys, canceled)


@pytest.mark.parametrize("name", CALLS)
async def test_each_call_of_the_context_is_a_checkpoint(bench: Bench, name: str) -> None:
    raised: list[BaseException] = []

    def call(context: Any) -> None:
        bench.canceled.set()
        try:
            CALLS[name](context)
        except BaseException as error:
            raised.append(error)
            raise

    outcome = await bench.run(call)
    assert [type(error) for error in raised] == [CanceledException]
    assert (outcome.status, outcome.error, bench.stopping) == ("canceled", None, [1])


async def test_node_can_query_log_and_finish_after_a_cancel(bench: Bench) -> None:
    def call(context: Any) -> None:
        bench.canceled.set()
        assert context.util.is_canceled()
        context.logger.info("going")

    outcome = await bench.run(call)
    assert (outcome.status, bench.stopping) == ("canceled", [])


async def test_node_that_ignores_the_cancel_reports_one_checkpoint(bench: Bench) -> None:
    def call(context: Any) -> None:
        bench.canceled.set()
        for _time in range(5):
            with pytest.raises(CanceledException):
                context.util.signal_progress("x")

    outcome = await bench.run(call)
    assert (outcome.status, bench.stopping) == ("canceled", [1])


async def test_cancel_wrapped_in_another_exception_is_still_a_cancel(bench: Bench) -> None:
    def call(context: Any) -> None:
        bench.canceled.set()
        try:
            context.util.signal_progress("x")
        except CanceledException as error:
            raise OSError("cannot load the model") from error

    assert (await bench.run(call)).status == "canceled"


async def test_a_thread_of_the_node_is_stopped_too(bench: Bench) -> None:
    raised: list[BaseException] = []

    def call(context: Any) -> None:
        bench.canceled.set()

        def work() -> None:
            try:
                context.util.signal_progress("x")
            except CanceledException as error:
                raised.append(error)

        helper = threading.Thread(target=work)
        helper.start()
        helper.join()

    assert (await bench.run(call)).status == "canceled"
    assert len(raised) == 1
