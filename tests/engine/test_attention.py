"""Implementations of attention against torch's own: slices, masks, xformers."""

import threading
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from invokeclone.engine import attention
from invokeclone.engine.attention import attend_in_slices, attention_of, xformers_attention
from invokeclone.engine.devices import DeviceMemory
from invokeclone.kit.config.settings import Settings
from tests.counted_memory import FakeMemory

HEADS, QUERIES, KEYS = 5, 6, 7
CPU = DeviceMemory("cpu")


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, HEADS, n, 8, generator=generator) for n in (QUERIES, KEYS, KEYS))
    return query, key, value


MASKS = {
    "none": None,
    "two dimensions": torch.randn(QUERIES, KEYS),
    "per head": torch.randn(2, HEADS, QUERIES, KEYS),
    "per head without a batch": torch.randn(HEADS, QUERIES, KEYS),
    "per image": torch.rand(2, 1, 1, KEYS) < 0.7,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_slices_give_torchs_result(mask: str, size: int) -> None:
    expected = functional.scaled_dot_product_attention(*inputs(), MASKS[mask], scale=0.3)
    result = attend_in_slices(*inputs(), MASKS[mask], scale=0.3, heads=lambda _query, _key: size)
    assert torch.allclose(result, expected, atol=1e-6)


class RecordedHeads(TorchFunctionMode):
    """Records the heads of each call of torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            self.heads.append(args[0].shape[1])
        return func(*args, **(kwargs or {}))


def heads_of(size: Any, memory: DeviceMemory = CPU) -> list[int]:
    settings = Settings(attention_type="sliced", attention_slice_size=size)
    with RecordedHeads() as calls, attention_of(settings, memory):
        functional.scaled_dot_product_attention(*inputs())
    return calls.heads


@pytest.mark.parametrize(
    ("size", "heads"), [("max", [1] * 5), ("balanced", [3, 2]), (2, [2, 2, 1]), (8, [5]), ("auto", [5])]
)
def test_sizes_of_slices(size: Any, heads: list[int]) -> None:
    assert heads_of(size, CPU) == heads


def test_automatic_slices_fit_into_the_free_memory() -> None:
    scores = 2 * QUERIES * KEYS * 4
    for capacity, heads in ((scores * 3, [2, 2, 1]), (scores * 10, [5]), (1, [1] * 5)):
        assert heads_of("auto", FakeMemory(capacity)) == heads


def test_other_threads_use_torchs_attention() -> None:
    calls: list[int] = []

    def attend() -> None:
        with RecordedHeads() as recorded:
            functional.scaled_dot_product_attention(*inputs())
        calls.extend(recorded.heads)

    with attention_of(Settings(attention_type="sliced", attention_slice_size="max"), CPU):
        thread = threading.Thread(target=attend)
        thread.start()
        thread.join()
    attend()
    assert calls == [HEADS, HEADS]


def test_a_missing_xformers_is_logged_once_and_torchs_attention_is_used(logged: Any) -> None:
    attention._xformers.cache_clear()
    settings = Settings(attention_type="xformers")
    expected = functional.scaled_dot_product_attention(*inputs())
    for _ in range(2):
        with attention_of(settings, CPU):
            assert torch.equal(functional.scaled_dot_product_attention(*inputs()), expected)
    (line,) = [record.getMessage() for record in logged if "xformers" in record.getMessage()]
    assert "not installed" in line


def test_xformers_gets_tokens_before_heads_and_calls_without_masks_only() -> None:
    calls: list[tuple[torch.Size, float | None]] = []

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, p: float, scale: float | None
    ) -> torch.Tensor:
        calls.append((query.shape, scale))
        turned = (tensor.transpose(1, 2) for tensor in (query, key, value))
        result: torch.Tensor = functional.scaled_dot_product_attention(*turned, dropout_p=p, scale=scale)
        return result.transpose(1, 2)

    expected = functional.scaled_dot_product_attention(*inputs(), scale=0.5)
    assert torch.equal(xformers_attention(attend, *inputs(), scale=0.5), expected)
    mask = MASKS["per image"]
    expected = functional.scaled_dot_product_attention(*inputs(), mask)
    assert torch.equal(xformers_attention(attend, *inputs(), mask), expected)
    assert calls == [(torch.Size((2, QUERIES, HEADS, 8)), 0.5)]
