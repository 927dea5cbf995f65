"""The model cache and where it puts weights, on a pretended device with little memory."""

import re

import pytest
import torch
from torch import nn

from invokeclone.engine.cache import GB, ModelCache
from invokeclone.engine.placement import Placement, size_of
from invokeclone.kit.config.settings import Settings
from tests.counted_memory import MB, FakeMemory


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def model(megabytes: float) -> nn.Sequential:
    """Four layers that take so many megabytes together."""
    rows = int(megabytes * MB / 4 / 4 / 64)
    return nn.Sequential(*(nn.Linear(64, rows, bias=False) for _ in range(4)))


def cache_of(capacity: float, **settings: object) -> tuple[ModelCache, FakeMemory]:
    memory = FakeMemory(int(capacity * MB))
    return ModelCache(Settings(device_working_mem_gb=0, **settings), "cpu", memory), memory


def test_a_model_is_loaded_once_and_counted():
    cache, _ = cache_of(100)
    loads = []
    first = cache.get("a:unet", lambda: loads.append(1) or model(1))
    second = cache.get("a:unet", lambda: loads.append(1) or model(1))
    assert first is second
    assert loads == [1]
    stats = cache.stats.as_dict()
    assert (stats["hits"], stats["misses"], stats["in_cache"]) == (1, 1, 1)
    assert stats["loaded_model_sizes"] == {"a:unet": first.size}
    assert stats["high_watermark"] == first.size == size_of(first.model)
    assert cache.new_stats().hits == 0
    assert cache.stats.in_cache == 1
    assert cache.usage() == (1, 1, first.size, 0)  # of the process: a session does not reset them
    with cache.hold(first):
        assert cache.usage() == (1, 1, first.in_ram, first.size)


def test_eviction_is_lru_and_skips_models_in_use():
    cache, _ = cache_of(100, max_cache_ram_gb=3.5 * MB / GB)
    a, _b = cache.get("a", lambda: model(1)), cache.get("b", lambda: model(1))
    cache.get("c", lambda: model(1))
    cache.get("a", lambda: pytest.fail("a was dropped"))
    cache.get("d", lambda: model(1))
    assert cache.keys() == ["c", "a", "d"]
    with cache.hold(a):
        cache.get("e", lambda: model(3))
        assert cache.keys() == ["a", "e"]
    assert cache.stats.cleared == 3


def test_cpu_models_are_not_moved():
    cache = ModelCache(Settings(), "cpu")
    module = model(1)
    weights = [parameter.data_ptr() for parameter in module.parameters()]
    entry = cache.get("a", lambda: module)
    with cache.hold(entry) as locked:
        assert locked is module
        assert entry.placement is None
        assert [parameter.data_ptr() for parameter in module.parameters()] == weights


def test_locked_models_move_to_the_device_and_stay_until_evicted():
    cache, memory = cache_of(5)
    small, middle, big = (
        cache.get(name, lambda size=size: model(size)) for name, size in (("s", 1), ("m", 2), ("b", 3))
    )
    with cache.hold(small), cache.hold(middle):
        assert memory.taken == small.size + middle.size
    with cache.hold(big):  # 2 MB are free: the smallest goes, and that is enough
        assert small.on_device == 0
        assert middle.on_device == middle.size
        assert big.on_device == big.size
    with cache.hold(small), cache.hold(big):
        assert middle.on_device == 0
    assert memory.taken == cache.device_used


def test_results_do_not_depend_on_weight_placement():
    cache, _ = cache_of(10)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)).eval()
    inputs = torch.ones(2, 4)
    expected = module(inputs)
    entry = cache.get("a", lambda: module)
    with torch.inference_mode(), cache.hold(entry):
        assert torch.equal(module(inputs), expected)
    assert entry.placement
    entry.placement.leave()
    assert torch.equal(module(inputs), expected)
    assert module[0].weight.requires_grad
    assert not module[0].weight.is_inference()


def test_without_a_ram_copy_weights_exist_once():
    cache, memory = cache_of(10, keep_ram_copy_of_weights=False)
    module = model(2)
    entry = cache.get("a", lambda: module)
    expected = module[0].weight.clone()
    with cache.hold(entry):
        assert cache.ram_used == 0
        assert memory.taken == entry.size
    assert entry.placement
    entry.placement.leave()
    assert memory.taken == 0
    assert torch.equal(module[0].weight, expected)


def test_layers_that_do_not_fit_are_streamed():
    cache, memory = cache_of(2.6)
    module = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(4)))
    inputs = torch.ones(1, 512)
    expected = module(inputs)
    entry = cache.get("a", lambda: module)
    memory_use = []
    module[3].register_forward_pre_hook(lambda *_: memory_use.append(memory.taken))
    with torch.inference_mode(), cache.hold(entry):
        assert 0 < entry.on_device < entry.size
        assert torch.equal(module(inputs), expected)
        assert memory.taken == entry.on_device
    assert memory_use[0] <= memory.capacity
    memory.capacity = 10 * MB
    with cache.hold(entry):
        assert entry.on_device == entry.size
    assert not module[3]._forward_hooks


class Padded(nn.Module):
    """A container of layers with a small weight of its own, as in transformers with tokens for padding."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 512))
        self.layers = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(4)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs + self.token)


def test_a_container_with_a_weight_of_its_own_is_streamed_by_layer():
    cache, memory = cache_of(2.6)
    module, inputs = Padded(), torch.ones(1, 512)
    expected = module(inputs)
    entry = cache.get("a", lambda: module)
    with torch.inference_mode(), cache.hold(entry):
        assert MB < entry.on_device < 1.6 * MB
        assert torch.equal(module(inputs), expected)
    assert memory.peak() <= memory.capacity


def test_attention_that_uses_the_weight_of_its_output_layer_is_one_unit():
    memory, module, tokens = FakeMemory(MB), nn.MultiheadAttention(16, 2, batch_first=True).eval(), torch.ones(1, 3, 16)
    expected = module(tokens, tokens, tokens)[0]
    placement = Placement(module, memory)
    placement.enter(0)
    assert placement.largest_unit == placement.size
    with torch.inference_mode():
        assert torch.allclose(module(tokens, tokens, tokens)[0], expected)


class Tied(nn.Module):
    """Two embeddings and an output layer with the same weight, as in text encoders and language models."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.other, self.middle = nn.Embedding(8, 64), nn.Embedding(8, 64), nn.Linear(64, 64)
        self.out = nn.Linear(64, 8, bias=False)
        self.other.weight = self.out.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.middle(self.table(tokens) + self.other(tokens)))


@pytest.mark.parametrize("ram_copy", [True, False])
@pytest.mark.parametrize("budget", [None, 0, 3000, 10**6])
def test_tied_weights_are_moved_once_and_leave_the_device(ram_copy: bool, budget: int | None):
    memory, module, tokens = FakeMemory(MB), Tied(), torch.arange(8)
    with torch.inference_mode():
        expected = module(tokens)
    placement = Placement(module, memory, keep_ram_copy=ram_copy)
    assert placement.size == size_of(module)
    for _ in range(2):
        placement.enter(budget)
        assert memory.taken == placement.on_device <= placement.size
        with torch.inference_mode():
            assert torch.equal(module(tokens), expected)
        assert memory.taken == placement.on_device
        placement.leave()
        assert memory.taken == 0
    assert module.out.weight is module.table.weight is module.other.weight


def test_units_joined_by_a_later_one_are_one():
    first, second, both = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    both.weight, both.bias = first.weight, second.bias
    memory = FakeMemory(MB)
    placement = Placement(nn.Sequential(first, second, both), memory)
    assert placement.size == size_of(nn.ModuleList([first, second]))
    placement.enter()
    assert memory.taken == placement.size
    placement.leave()
    assert memory.taken == 0


def test_an_error_while_streaming_leaves_the_weights_in_ram():
    memory = FakeMemory(10 * MB)
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    placement = Placement(module, memory)
    placement.enter(budget=0)
    with pytest.raises(RuntimeError):
        module(torch.ones(1, 5))
    assert memory.taken == 0
    assert module(torch.ones(1, 4)).shape == (1, 4)


def test_out_of_memory_evicts_other_models_and_retries():
    cache, memory = cache_of(5, enable_partial_loading=False, max_cache_vram_gb=1)  # the limit promises too much
    first, second = cache.get("a", lambda: model(3)), cache.get("b", lambda: model(3))
    with cache.hold(first):
        pass
    with cache.hold(second):
        assert first.on_device == 0
        assert second.on_device == second.size
    assert memory.emptied


def test_a_model_that_never_fits_fails_and_frees_its_memory():
    cache, memory = cache_of(2, enable_partial_loading=False)
    entry = cache.get("a", lambda: model(3))
    with pytest.raises(torch.OutOfMemoryError), cache.hold(entry):
        pass
    assert entry.locks == 0
    assert entry.on_device == 0
    assert memory.taken == 0


def test_out_of_memory_in_the_loader_is_retried_once():
    cache, _ = cache_of(5)
    with cache.hold(cache.get("a", lambda: model(1))):
        pass
    tries = []

    def load() -> nn.Module:
        tries.append(cache.device_used)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("full")
        return model(1)

    cache.get("b", load)
    assert tries[0] > 0
    assert tries[1] == 0


def test_the_device_is_freed_for_a_computation_that_ran_out_of_memory():
    cache, memory = cache_of(8)
    cache._working = MB
    used, idle = cache.get("used", lambda: model(1)), cache.get("idle", lambda: model(2))
    with cache.hold(idle):
        pass
    with cache.hold(used):
        assert cache.free_device()
        assert (idle.on_device, used.on_device) == (0, used.size)
    assert memory.taken == used.size
    assert memory.emptied
    reserved = []
    for _ in range(3):
        cache.free_device()
        reserved.append(cache._working)
    assert reserved == [4 * MB] * 3  # half of the device
    assert not ModelCache(Settings(), "cpu").free_device()


def test_a_changed_model_is_dropped_with_its_parts():
    cache, memory = cache_of(10)
    for key in ("a:unet", "a:vae", "ab"):
        with cache.hold(cache.get(key, lambda: model(1))):
            pass
    assert cache.drop("a") == 2
    assert cache.keys() == ["ab"]
    assert memory.taken == cache.device_used


def test_clear_keeps_models_in_use():
    cache, _ = cache_of(10)
    used = cache.get("a", lambda: model(1))
    cache.get("b", lambda: model(1))
    with cache.hold(used):
        assert cache.clear() == 1
        assert cache.keys() == ["a"]
    assert cache.clear() == 1


def test_idle_models_expire_after_keep_alive():
    clock = Clock()
    cache = ModelCache(Settings(model_cache_keep_alive_min=1), "cpu", clock=clock)
    entry = cache.get("a", lambda: model(1))
    clock.now = 50
    with cache.hold(entry):
        clock.now = 500
        assert cache.expire() == 0
    clock.now = 530
    assert cache.expire() == 0
    clock.now = 560
    assert cache.expire() == 1
    assert not cache.keys()
    assert ModelCache(Settings(), "cpu", clock=clock).expire() == 0


def test_limits_come_from_the_settings_or_the_machine():
    assert ModelCache(Settings(max_cache_ram_gb=7), "cpu").ram_limit == 7 * GB
    assert ModelCache(Settings(), "cpu").ram_limit >= 4 * GB
    assert ModelCache(Settings(), "cpu", FakeMemory(5 * GB)).ram_limit == 4 * GB


def test_objects_without_weights_have_no_size_or_placement():
    cache, _ = cache_of(10)
    entry = cache.get("a:tokenizer", object)
    with cache.hold(entry):
        assert entry.size == 0
        assert entry.placement is None


@pytest.mark.parametrize("wanted", [False, True])
def test_memory_logging_covers_each_load_and_move_when_enabled(wanted, logged):
    cache, _ = cache_of(100, log_memory_usage=wanted)
    for _ in range(2):
        with cache.hold(cache.get("a:unet", lambda: model(20))):
            pass
    messages = [record.getMessage() for record in logged if "RAM" in record.getMessage()]
    assert len(messages) == (2 if wanted else 0)
    if wanted:
        number = r"\d+\.\d\d"
        assert re.fullmatch(rf"loading a:unet: RAM {number} -> {number} GB, VRAM 0.00 -> 0.00 GB", messages[0])
        assert re.fullmatch(rf"moving a:unet to cpu: RAM {number} -> {number} GB, VRAM 0.00 -> 0.02 GB", messages[1])


def test_memory_is_logged_for_failed_loads(logged):
    cache, _ = cache_of(100, log_memory_usage=True)
    with pytest.raises(KeyError):
        cache.get("a", lambda: {}["nothing"])
    assert [record.getMessage().split(":")[0] for record in logged if "RAM" in record.getMessage()] == ["loading a"]


def test_a_model_for_the_cpu_takes_no_memory_of_the_device():
    cache, memory = cache_of(10)
    entry = cache.get("a", lambda: model(1), on_cpu=True)
    with cache.hold(entry):
        assert memory.taken == 0
        assert (entry.on_device, entry.in_ram) == (0, entry.size)
