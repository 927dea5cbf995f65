"""Latents resized, scaled, cut and blended by nodes."""

from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from invokeclone.graph.vocabulary.fields import LatentsField
from invokeclone.nodes.latents.shape import (
    BlendLatentsInvocation,
    CropLatentsCoreInvocation,
    ResizeLatentsInvocation,
    ScaleLatentsInvocation,
)
from tests.fakes_context import FakeContext
from tests.tiny_models import noise_of


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def save(context: FakeContext, tensor: torch.Tensor) -> LatentsField:
    return LatentsField(latents_name=context.tensors.save(tensor), seed=9)


def run(context: FakeContext, node: Any) -> tuple[torch.Tensor, int | None]:
    """Return the latents and the seed that a node gives out."""
    output = node.invoke(context)
    latents = context.tensors.load(output.latents.latents_name)
    assert (output.width, output.height) == (latents.shape[-1] * 8, latents.shape[-2] * 8)
    return latents, output.latents.seed


def test_resize_takes_a_size_in_pixels(context: FakeContext):
    field = save(context, noise_of(1))
    resized, seed = run(context, ResizeLatentsInvocation(latents=field, width=128, height=64, mode="nearest"))
    assert torch.equal(resized, functional.interpolate(noise_of(1), size=(8, 16), mode="nearest"))
    assert seed == 9


@pytest.mark.parametrize("antialias", [False, True])
def test_scale_multiplies_the_size_by_the_factor(context: FakeContext, antialias: bool):
    node = ScaleLatentsInvocation(latents=save(context, noise_of(1)), scale_factor=1.3, antialias=antialias)
    scaled, seed = run(context, node)
    expected = functional.interpolate(noise_of(1), scale_factor=1.3, mode="bilinear", antialias=antialias)
    assert torch.equal(scaled, expected)
    assert not torch.allclose(scaled, functional.interpolate(noise_of(1), size=(10, 10), mode="bilinear"), atol=1e-2)
    assert seed == 9


def test_interpolation_modes_for_other_dimensions_are_refused(context: FakeContext):
    with pytest.raises(ValueError, match="does not work on images"):
        run(context, ScaleLatentsInvocation(latents=save(context, noise_of(1)), scale_factor=2, mode="trilinear"))


def test_crop_extracts_a_rectangle(context: FakeContext):
    field = save(context, noise_of(1))
    cropped, seed = run(context, CropLatentsCoreInvocation(latents=field, x=8, y=16, width=24, height=32))
    assert torch.equal(cropped, noise_of(1)[..., 2:6, 1:4])
    assert seed is None
    over_the_edge, _ = run(context, CropLatentsCoreInvocation(latents=field, x=48, y=0, width=64, height=8))
    assert torch.equal(over_the_edge, noise_of(1)[..., :1, 6:])
    with pytest.raises(ValueError, match="outside"):
        run(context, CropLatentsCoreInvocation(latents=field, x=640, y=0, width=8, height=8))


def test_blending(context: FakeContext):
    a, b = save(context, noise_of(1)), save(context, noise_of(2))

    def blend(**changes: Any) -> torch.Tensor:
        latents, seed = run(context, BlendLatentsInvocation(**{"latents_a": a, "latents_b": b, **changes}))
        assert seed is None
        return latents

    assert torch.allclose(blend(alpha=0), noise_of(1), atol=1e-5)
    assert torch.allclose(blend(alpha=1), noise_of(2), atol=1e-5)
    assert torch.allclose(blend(latents_b=a), noise_of(1), atol=1e-5)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    half = blend(alpha=1, mask=context.images.put(mask))
    assert torch.allclose(half[..., :3], noise_of(1)[..., :3], atol=1e-5), "white keeps A"
    assert torch.allclose(half[..., 5:], noise_of(2)[..., 5:], atol=1e-5)
    with pytest.raises(ValueError, match="same shape"):
        blend(latents_b=save(context, torch.zeros(1, 4, 2, 2)))
