"""Optional ways to run networks, for every family: by default nothing changes; each option's effect and its distance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from invokeclone.engine import compilation
from invokeclone.engine.cache import ModelCache
from invokeclone.kit.config.settings import Settings
from tests.families.denoise_runs import FAMILIES, SOME_FAMILIES, DenoiseRun

Runs = Callable[[str], DenoiseRun]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return a denoise node of a family by its name; each is made once."""
    cache, made = ModelCache(Settings(root=tmp_path_factory.mktemp("root"), device="cpu"), "cpu"), {}

    def run_of(family: str) -> DenoiseRun:
        if family not in made:
            folder: Path = request.getfixturevalue(f"{family}_folder")
            made[family] = DenoiseRun(family, folder, cache)
        return made[family]

    return run_of


class AttentionCalls(TorchFunctionMode):
    """Records the heads of each call of torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            self.heads.append((args[0] if args else kwargs["query"]).shape[1])
        return func(*args, **(kwargs or {}))


def counted(run: DenoiseRun, **settings: Any) -> tuple[torch.Tensor, list[int]]:
    with AttentionCalls() as calls:
        latents = run(**settings)
    return latents, calls.heads


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_options_of_attention_give_the_same_latents(family: str, runs: Runs) -> None:
    run = runs(family)
    expected, heads = counted(run)
    for kind in ("normal", "torch-sdp"):
        latents, same_heads = counted(run, attention_type=kind)
        assert torch.equal(latents, expected)
        assert same_heads == heads
    single, single_heads = counted(run, attention_type="sliced", attention_slice_size="max")
    assert set(single_heads) == {1}
    assert len(single_heads) == sum(heads)
    assert difference(single, expected) < 1e-5
    assert max(heads) > 1


@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_attention_is_reused_in_the_middle_of_a_run(family: str, runs: Runs) -> None:
    run = runs(family)
    expected, heads = counted(run)
    latents, reduced = counted(run, pyramid_attention_broadcast=2)
    assert 0.5 <= len(reduced) / len(heads) < 0.8
    assert 0 < difference(latents, expected) < 0.5
    again, same = counted(run, pyramid_attention_broadcast=2)
    assert torch.equal(again, latents)  # nothing is left of the first run
    assert same == reduced
    plain, plain_heads = counted(run)
    assert torch.equal(plain, expected)
    assert plain_heads == heads
    assert not any("forward" in module.__dict__ for module in run.network.modules())


@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_late_steps_may_go_without_the_negative_prompt(family: str, runs: Runs) -> None:
    run, rows = runs(family), []
    first = next(module for module in run.network.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d))
    hook = first.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    try:
        expected = run()
        every_step, _ = sum(rows), rows.clear()
        latents = run(guidance_end=0.5)
    finally:
        hook.remove()
    assert sum(rows) / every_step == pytest.approx(0.75)
    assert 0 < difference(latents, expected) < 0.5
    assert torch.equal(run(guidance_end=1.0), expected)


@pytest.mark.parametrize("family", ["sd1", "sd3"])
def test_sequential_guidance_gives_the_same_latents(family: str, runs: Runs) -> None:
    run = runs(family)
    expected, heads = counted(run)
    latents, sequential_heads = counted(run, sequential_guidance=True)
    assert len(sequential_heads) == 2 * len(heads)
    assert difference(latents, expected) < 1e-4


def use_backend(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    original = compilation.compile_blocks
    monkeypatch.setattr(
        "invokeclone.engine.optimizations.compile_blocks",
        lambda network, *, enabled: original(network, enabled=enabled, backend=backend),
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_blocks_give_the_same_latents(family: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def backend(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    use_backend(monkeypatch, backend)
    run = runs(family)
    expected = run()
    assert not compiled
    latents = run(torch_compile=True)
    assert difference(latents, expected) < 1e-5
    count = len(compiled)
    assert count > 0
    run(torch_compile=True)
    assert len(compiled) == count  # the code of the first run is used again
    assert torch.equal(run(), expected)
    assert not any(module._compiled_call_impl for module in run.network.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself
@pytest.mark.slow
def test_compiled_code_of_inductor_gives_the_same_latents(runs: Runs) -> None:
    run = runs("sd1")
    assert difference(run(torch_compile=True), run()) < 1e-4


@pytest.mark.slow
def test_hooks_that_a_run_adds_to_compiled_blocks_act(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    use_backend(monkeypatch, "eager")
    run = runs("flux")
    norm = run.network.transformer_blocks[0].attn.norm_q
    expected = run(torch_compile=True)
    hooks: list[Any] = []

    def add(*_: Any) -> None:
        if not hooks:
            hooks.append(norm.register_forward_hook(lambda _module, _inputs, output: output * 2))

    hook = run.network.x_embedder.register_forward_hook(add)
    try:
        changed = run(torch_compile=True)
    finally:
        hook.remove()
        hooks[0].remove()
    assert difference(changed, expected) > 1e-3
    assert torch.equal(run(torch_compile=True), expected)
