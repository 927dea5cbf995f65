"""Memory of the device in runs of every family, counted on a pretended device, and compared with diffusers' offloading."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from invokeclone.engine.cache import ModelCache
from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.layers import LoRA
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.engine.placement import Placement, size_of
from invokeclone.kit.config.settings import Settings
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from tests.counted_memory import MB, FakeMemory
from tests.families.denoise_runs import SOME_FAMILIES, DenoiseRun
from tests.tiny_models import noise_of

MakeRun = Callable[..., tuple[DenoiseRun, FakeMemory]]


@pytest.fixture
def make_run(request: pytest.FixtureRequest, tmp_path: Path) -> MakeRun:
    """Make a denoise node of a family whose models are on a pretended device."""

    def make(
        family: str, *, copies_ahead: bool = False, cpu_only: bool = False, **settings: Any
    ) -> tuple[DenoiseRun, FakeMemory]:
        memory = FakeMemory(100 * MB, copies_ahead=copies_ahead)
        cache = ModelCache(Settings(root=tmp_path, device_working_mem_gb=0, **settings), "cpu", memory)
        changes = {"default_settings": MainModelDefaultSettings(cpu_only=True)} if cpu_only else {}
        return DenoiseRun(family, request.getfixturevalue(f"{family}_folder"), cache, **changes), memory

    return make


@pytest.fixture
def make_plain(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], DenoiseRun]:
    """Make a denoise node of a family that runs on the CPU."""
    cache = ModelCache(Settings(root=tmp_path), "cpu")
    return lambda family: DenoiseRun(family, request.getfixturevalue(f"{family}_folder"), cache)


def empty_device(run: DenoiseRun) -> None:
    for entry in run.cache._entries.values():
        if entry.placement:
            entry.placement.leave()


@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_a_network_larger_than_the_device_runs(family: str, make_run: MakeRun) -> None:
    run, memory = make_run(family, copies_ahead=True)
    expected, network = run(), run.network
    empty_device(run)
    assert memory.taken == 0
    memory.capacity = min(size_of(network) // 3 + Placement(network, memory).largest_unit, size_of(network) - 1)
    memory.reset_peak()
    for _ in range(2):  # in the second run, the order of the layers is known
        assert torch.equal(run(), expected)
    assert 0 < memory.peak() <= memory.capacity
    (entry,) = (entry for entry in run.cache._entries.values() if entry.model is network)
    assert 0 < entry.on_device < entry.size
    assert entry.locks == 0


@contextmanager
def offloaded(network: nn.Module) -> Iterator[list[int]]:
    """Offload each layer with accelerate, as diffusers' sequential offloading does; yields the bytes of each moment."""
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_submodules

    cpu_offload(network, torch.device("cpu"), offload_buffers=True)
    tensors, taken = [*network.named_parameters(), *network.named_buffers()], []
    names = [name.rpartition(".") for name, _ in tensors]
    owners = [(network.get_submodule(path), name) for path, _, name in names]

    def count(forward: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            now = (getattr(owner, name) for owner, name in owners)
            taken.append(sum(tensor.nbytes for tensor in now if tensor.device.type != "meta"))
            return forward(*args, **kwargs)

        return counted

    for module in network.modules():
        if hasattr(module, "_old_forward"):
            module._old_forward = count(module._old_forward)
    try:
        yield taken
    finally:
        remove_hook_from_submodules(network)


@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_the_peak_is_that_of_diffusers_with_the_same_offloading(
    family: str, make_run: MakeRun, make_plain: Callable[[str], DenoiseRun]
) -> None:
    run, memory = make_run(family, max_cache_vram_gb=0)
    run.shorten()
    run()
    memory.reset_peak()
    run()
    ours = memory.peak()
    assert memory.taken == 0
    plain = make_plain(family)
    plain.shorten()
    with offloaded(plain.network) as taken:
        plain()
    assert ours <= max(taken) * 1.1
    assert ours < size_of(run.network)


@pytest.mark.parametrize("family", ["sd1", "sd3"])
def test_text_encoders_leave_the_device_before_denoising(family: str, make_run: MakeRun) -> None:
    run, memory = make_run(family)
    expected, network = run(), run.network
    encoders = [e for e in run.cache._entries.values() if "text_encoder" in e.key and e.placement]
    assert encoders
    assert all(entry.on_device for entry in encoders)  # there is room for all
    empty_device(run)
    memory.capacity = max(size_of(network), *(entry.size for entry in encoders))
    for entry in encoders:
        with run.cache.hold(entry):
            pass
    assert torch.equal(run(), expected)
    (entry,) = (entry for entry in run.cache._entries.values() if entry.model is network)
    assert entry.on_device == entry.size
    assert sum(entry.on_device for entry in encoders) + entry.size <= memory.capacity


@pytest.mark.parametrize("share", [0.0, 0.5, None])
def test_a_lora_survives_moves_of_the_network(share: float | None, sd1_parts: dict[str, Any]) -> None:
    unet, memory = copy.deepcopy(sd1_parts["unet"]), FakeMemory(100 * MB, copies_ahead=True)
    generator = torch.Generator().manual_seed(0)
    names = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear) and "attn" in name]
    layers = {}
    for name in names:
        rows, columns = unet.get_submodule(name).weight.shape
        layers[name.replace(".", "_")] = LoRA(
            torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator), None, 1.0
        )
    patch, inputs = LoRAPatch("style", layers, 0.3), (noise_of(1), 500, torch.ones(1, 7, 32))

    def predict() -> torch.Tensor:
        with torch.inference_mode():
            return unet(*inputs).sample

    plain = predict()
    with apply_loras(unet, [patch], torch.device("cpu")):
        expected = predict()
    assert (expected - plain).abs().max() > 1e-3
    placement = Placement(unet, memory)
    for _ in range(2):
        placement.enter(None if share is None else int(placement.size * share))
        with apply_loras(unet, [patch], torch.device("cpu")):
            for _ in range(2):
                assert torch.allclose(predict(), expected, atol=1e-5)
        assert torch.equal(predict(), plain)
        placement.leave()
        assert memory.taken == 0


@pytest.mark.parametrize("family", ["sd1", "sd3"])
def test_text_encoders_of_a_model_for_the_cpu_take_no_memory_of_the_device(family: str, make_run: MakeRun) -> None:
    expected = make_run(family)[0]()
    run, memory = make_run(family, cpu_only=True)
    assert torch.allclose(run(), expected, atol=1e-4)
    encoders = [e for e in run.cache._entries.values() if ":text_encoder" in e.key]
    assert encoders
    assert all(entry.on_cpu and entry.placement is None for entry in encoders)
    assert memory.taken == size_of(run.network)
