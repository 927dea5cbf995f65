"""The first-block cache: off unless set, the same latents where nothing is skipped, fewer calls of blocks where it is."""

import gc
import weakref
from typing import Any

import pytest
import torch

from invokeclone.components.flux.regions import PromptRegion
from invokeclone.families.flux import pipeline
from invokeclone.families.flux.conditioning import build_conditioning
from invokeclone.families.flux.controlnet import FluxControlNet
from invokeclone.kit.config.settings import Settings
from tests.families.flux.test_controls import encoded, make_controlnet
from tests.families.flux.test_pipeline import HEIGHT, WIDTH, Text, image_of, run, side, task_of
from tests.tiny_flux import make_transformer

STEPS = 4


class Calls:
    """Counts the calls of a transformer's blocks that compute, by block."""

    def __init__(self, transformer: Any) -> None:
        self.counts: list[int] = []
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        self.counts = [0] * len(blocks)
        self._hooks = [
            block.attn.to_q.register_forward_hook(lambda *_, number=number: self._count(number))
            for number, block in enumerate(blocks)
        ]

    def _count(self, number: int) -> None:
        self.counts[number] += 1

    def stop(self) -> list[int]:
        for hook in self._hooks:
            hook.remove()
        return self.counts


def counted(transformer: Any, task: Any) -> tuple[torch.Tensor, list[int]]:
    calls = Calls(transformer)
    try:
        return run(transformer, task), calls.stop()
    finally:
        calls.stop()


def with_guidance(flux_text: Text, **changes: Any) -> Any:
    """Return a task with both sides of the guidance in the middle steps, and only the positive one in the others."""
    inputs = {"cfg_scale": 2.0}
    negative = side(flux_text(2), positive=False)
    return task_of(flux_text, inputs, negative=negative, cfg_start=1, cfg_end=2, **changes)


def test_a_threshold_of_zero_computes_everything(flux_transformer: Any, flux_text: Text) -> None:
    expected, calls = counted(flux_transformer, with_guidance(flux_text))
    assert calls == [STEPS + 2] * 4
    latents, cached_calls = counted(flux_transformer, with_guidance(flux_text, cache_threshold=0.0))
    assert torch.equal(latents, expected)
    assert cached_calls == calls


def test_a_large_threshold_computes_each_side_once(flux_transformer: Any, flux_text: Text) -> None:
    expected = run(flux_transformer, with_guidance(flux_text))
    latents, calls = counted(flux_transformer, with_guidance(flux_text, cache_threshold=1.0))
    assert calls == [STEPS + 2, 2, 2, 2]  # the first block decides; the others run once per side
    assert torch.isfinite(latents).all()
    assert not torch.equal(latents, expected)
    again, calls = counted(flux_transformer, with_guidance(flux_text, cache_threshold=1.0))
    assert torch.equal(again, latents)  # nothing is left of the first run
    assert calls == [STEPS + 2, 2, 2, 2]


def test_a_skipped_step_adds_what_the_blocks_added_before(flux_transformer: Any, flux_text: Text) -> None:
    states: list[torch.Tensor] = []
    hook = flux_transformer.norm_out.norm.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0].clone()))
    try:
        heads = head_outputs(flux_transformer, flux_text)
    finally:
        hook.remove()
    assert len(states) == len(heads) == STEPS
    added = states[0] - heads[0]
    for state, head in zip(states, heads, strict=True):
        assert torch.allclose(state, head + added, atol=1e-4)


def head_outputs(net: Any, flux_text: Text) -> list[torch.Tensor]:
    """Return the image tokens after the first block in each step of a run with a large threshold."""
    outputs: list[torch.Tensor] = []
    block = net.transformer_blocks[0]
    original = type(block).forward

    def record(self: Any, *args: Any, **kwargs: Any) -> Any:
        text, hidden = original(self, *args, **kwargs)
        if self is block:
            outputs.append(hidden.clone())
        return text, hidden

    type(block).forward = record
    try:
        run(net, task_of(flux_text, cache_threshold=1.0))
    finally:
        type(block).forward = original
    return outputs


def test_regions_are_cached_too(flux_transformer: Any, flux_text: Text) -> None:
    mask = torch.zeros(1, HEIGHT // 16, WIDTH // 16)
    mask[..., : WIDTH // 32] = 1
    texts = [flux_text(seed) for seed in (1, 2)]
    regions = [PromptRegion(texts[0][0], mask), PromptRegion(texts[1][0], 1 - mask)]
    positive = build_conditioning(regions, texts[0][1], HEIGHT // 16, WIDTH // 16, positive=True)
    assert positive.attention_mask is not None
    expected = run(flux_transformer, task_of(flux_text, positive=positive))
    zero = run(flux_transformer, task_of(flux_text, positive=positive, cache_threshold=0.0))
    assert torch.equal(zero, expected)
    _, calls = counted(flux_transformer, task_of(flux_text, positive=positive, cache_threshold=1.0))
    assert calls == [STEPS, 1, 1, 1]


def test_runs_with_controls_do_not_use_it(
    flux_transformer: Any, flux_vae: Any, flux_text: Text, caplog: pytest.LogCaptureFixture
) -> None:
    control = FluxControlNet(make_controlnet(), encoded(flux_vae, image_of(1)), (2, 2), weight=0.5)
    expected, calls = counted(flux_transformer, task_of(flux_text, controls=[control]))
    with caplog.at_level("INFO", logger="invokeclone.families.flux"):
        latents, cached_calls = counted(flux_transformer, task_of(flux_text, controls=[control], cache_threshold=1.0))
    assert torch.equal(latents, expected)
    assert cached_calls == calls == [STEPS] * 4
    assert "cache is not used with ControlNets" in caplog.text


def test_an_aborted_run_leaves_nothing_in_the_transformer(flux_text: Text) -> None:
    transformer = make_transformer()

    def stop(state: Any) -> None:
        if state.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.denoise(transformer, task_of(flux_text, cache_threshold=1.0), torch.device("cpu"), stop)
    assert not transformer.is_cache_enabled
    for module in transformer.modules():
        assert "forward" not in module.__dict__
        assert not hasattr(module, "_diffusers_hook")


def test_weights_of_a_dropped_transformer_are_freed_at_once(flux_text: Text) -> None:
    transformer = make_transformer()
    run(transformer, task_of(flux_text, cache_threshold=1.0))
    weight = weakref.ref(transformer.transformer_blocks[0].attn.to_q.weight)
    gc.disable()
    try:
        del transformer
        assert weight() is None
    finally:
        gc.enable()


def test_the_setting_is_off_by_default() -> None:
    assert Settings().first_block_cache_threshold is None
