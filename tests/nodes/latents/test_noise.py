"""Noise for every kind of latents: shapes, number formats, generators."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from invokeclone.engine import devices
from invokeclone.kit.config.settings import Settings
from invokeclone.nodes.latents.noise import NoiseInvocation, SchedulerInvocation
from tests.fakes_context import FakeConfig, FakeContext
from tests.tiny_models import noise_of

KINDS = {
    "SD": ((1, 4, 8, 12), 8),
    "FLUX": ((1, 16, 8, 12), 16),
    "FLUX.2": ((1, 32, 8, 12), 16),
    "SD3": ((1, 16, 8, 12), 16),
    "CogView4": ((1, 16, 8, 12), 32),
    "Z-Image": ((1, 16, 8, 12), 16),
    "Anima": ((1, 16, 1, 8, 12), 8),
}
"""Shape of the noise of 96 x 64 pixels, and what its sides must be multiples of."""
ALWAYS_FLOAT32 = ("Z-Image", "Anima")


@pytest.fixture
def context(tmp_path: Path) -> FakeContext:
    return FakeContext(config=FakeConfig(Settings(root=tmp_path, device="cpu")))


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the models compute on a GPU."""
    monkeypatch.setattr(devices, "choose_torch_device", lambda _settings: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H200")


def noise(context: FakeContext, **inputs: Any) -> torch.Tensor:
    output = NoiseInvocation(**{"seed": 5, "width": 96, "height": 64, **inputs}).invoke(context)
    assert (output.noise.seed, output.width, output.height) == (5, 96, 64)
    return context.tensors.load(output.noise.latents_name)


@pytest.mark.parametrize("precision", ["auto", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_cpu_noise_is_always_float32(kind: Any, precision: str, context: FakeContext):
    context.config.settings = context.config.settings.model_copy(update={"precision": precision})
    shape, _ = KINDS[kind]
    assert torch.equal(noise(context, noise_type=kind), noise_of(5, *shape))
    assert torch.equal(noise(context, noise_type=kind, use_cpu=False), noise_of(5, *shape))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("auto", torch.float16),
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
        ("float32", torch.float32),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("on_cuda")
def test_noise_for_a_gpu_is_generated_on_the_cpu_in_the_gpu_dtype(
    kind: Any, precision: str, dtype: torch.dtype, context: FakeContext
):
    context.config.settings = context.config.settings.model_copy(update={"precision": precision})
    drawn, (shape, _) = noise(context, noise_type=kind), KINDS[kind]
    assert drawn.dtype == (torch.float32 if kind in ALWAYS_FLOAT32 else dtype)
    difference = (drawn.float() - noise_of(5, *shape)).abs().max()
    assert difference <= (0.01 if drawn.dtype == torch.bfloat16 else 0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_sides_off_the_grid_are_refused(kind: Any, context: FakeContext):
    grid = KINDS[kind][1]
    assert noise(context, noise_type=kind).ndim == len(KINDS[kind][0])
    if grid > 8:
        with pytest.raises(ValueError, match=f"multiples of {grid}, not 72 x 64"):
            NoiseInvocation(noise_type=kind, width=72, height=64).invoke(context)
    with pytest.raises(ValidationError):
        NoiseInvocation(noise_type=kind, width=65)


@pytest.mark.usefixtures("on_cuda")
def test_noise_is_generated_on_the_gpu_when_use_cpu_is_false(context: FakeContext, monkeypatch: pytest.MonkeyPatch):
    from invokeclone.engine import latents

    drawn: list[tuple[torch.device, torch.dtype]] = []

    def draw(_seed: int, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        drawn.append((device, dtype))
        return torch.zeros(shape)

    monkeypatch.setattr(latents, "noise", draw)
    noise(context, use_cpu=False)
    noise(context, noise_type="Anima", use_cpu=False)
    noise(context)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert drawn == [(cuda, torch.float16), (cuda, torch.float32), (cpu, torch.float16)]


def test_scheduler_node_returns_the_scheduler_name(context: FakeContext):
    assert SchedulerInvocation(scheduler="lcm").invoke(context).scheduler == "lcm"
