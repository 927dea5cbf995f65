"""Nodes that make the masks of denoising."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.components.autoencoders.vae import image_to_tensor
from invokeclone.families.stable_diffusion import pipeline
from invokeclone.families.stable_diffusion.fields import ModelLoaderOutput
from invokeclone.families.stable_diffusion.nodes.autoencoder import ImageToLatentsInvocation
from invokeclone.families.stable_diffusion.nodes.masks import CreateDenoiseMaskInvocation, CreateGradientMaskInvocation
from invokeclone.graph.vocabulary.fields import ImageField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ModelVariantType
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import CPU, latents_of, settings


def half(context: FakeContext, size: tuple[int, int] = (64, 48)) -> ImageField:
    """Return a mask whose left half is black."""
    mask = Image.new("L", size, 255)
    mask.paste(0, (0, 0, size[0] // 2, size[1]))
    return context.images.put(mask)


def test_an_image_under_a_mask(context: FakeContext, denoise_node: Any, model: ModelLoaderOutput):
    image = context.images.put(Image.linear_gradient("L").resize((64, 48)).convert("RGB"))
    latents = ImageToLatentsInvocation(image=image, vae=model.vae).invoke(context)
    assert (latents.width, latents.height, latents.latents.seed) == (64, 48, None)
    mask = CreateDenoiseMaskInvocation(vae=model.vae, image=image, mask=half(context)).invoke(context)
    assert not mask.denoise_mask.gradient
    output = denoise_node(latents=latents.latents, denoise_mask=mask.denoise_mask, denoising_start=0.2)
    before, after = latents_of(context, latents), latents_of(context, output.invoke(context))
    assert torch.allclose(after[..., 5:], before[..., 5:], atol=1e-6)
    assert not torch.allclose(after[..., :3], before[..., :3], atol=1e-2)
    plain = CreateDenoiseMaskInvocation(vae=model.vae, mask=half(context)).invoke(context)
    assert plain.denoise_mask.masked_latents_name is None


@pytest.mark.parametrize("size", [(64, 48), (128, 96), (32, 24)])
def test_the_hidden_part_of_the_image_is_zero(
    context: FakeContext, model: ModelLoaderOutput, sd1_parts: dict[str, Any], size: tuple[int, int]
):
    """In -1..1, between gray 127 and 128; the mask is made to fit the image, not the other way round."""
    image = Image.radial_gradient("L").resize((64, 48)).convert("RGB")
    node = CreateDenoiseMaskInvocation(
        vae=model.vae, image=context.images.put(image), mask=half(context, size), fp32=True
    )
    output = node.invoke(context)
    assert context.tensors.load(output.denoise_mask.mask_name).shape == (1, 1, size[1], size[0])
    pixels = image_to_tensor(image)
    pixels[..., :32] = 0.0
    expected = pipeline.encode_image(sd1_parts["vae"], pixels, CPU, fp32=True)
    masked = context.tensors.load(output.denoise_mask.masked_latents_name)
    assert torch.allclose(masked, expected, atol=1e-5)
    pixels[..., :32] = 128 / 127.5 - 1
    gray = pipeline.encode_image(sd1_parts["vae"], pixels, CPU, fp32=True)
    assert not torch.allclose(masked, gray, atol=1e-5)


def test_the_setting_forces_tiles_for_masked_latents(context: FakeContext, model: ModelLoaderOutput):
    image = context.images.put(Image.radial_gradient("L").resize((128, 64)).convert("RGB"))
    mask = half(context, (128, 64))

    def encode_masked(**changes: Any) -> torch.Tensor:
        node = CreateDenoiseMaskInvocation(vae=model.vae, image=image, mask=mask, **changes)
        return context.tensors.load(node.invoke(context).denoise_mask.masked_latents_name)

    whole, tiled = encode_masked(), encode_masked(tiled=True)
    settings(context, force_tiled_decode=True)
    assert torch.equal(encode_masked(), tiled)
    assert not torch.equal(tiled, whole)


@pytest.mark.parametrize("mode", ["Gaussian Blur", "Box Blur", "Staged"])
def test_a_gradient_mask(context: FakeContext, mode: str):
    mask = Image.new("L", (128, 64), 255)
    mask.paste(0, (0, 0, 32, 64))
    field = context.images.put(mask)
    output = CreateGradientMaskInvocation(mask=field, edge_radius=16, coherence_mode=mode, minimum_denoise=0.5).invoke(
        context
    )
    assert output.denoise_mask.gradient
    assert output.denoise_mask.masked_latents_name is None
    row = context.tensors.load(output.denoise_mask.mask_name)[0, 0, 32]
    assert not row[:24].any()
    assert (row[64:] == 1).all()
    assert (row.diff() >= 0).all()
    assert float(row[40]) == pytest.approx(127 / 255)
    assert context.images.saved[-1].image_name == output.expanded_mask_area.image_name
    assert context.images.saved[-1].image_category == ImageCategory.GENERAL
    area = context.images.last()
    assert (area.mode, area.size) == ("L", (128, 64))
    assert [area.getpixel((x, 32)) for x in (0, 40, 100)] == [0, 0, 255]


def test_an_inpainting_model_gets_the_masked_image(
    context: FakeContext, model: ModelLoaderOutput, sd1_parts: dict[str, Any]
):
    mask = half(context, (64, 64))
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    node = CreateGradientMaskInvocation(
        mask=mask, image=context.images.put(picture), vae=model.vae, unet=model.unet, edge_radius=0, fp32=True
    )
    assert node.invoke(context).denoise_mask.masked_latents_name is None
    context.models.record = SimpleNamespace(**{**vars(context.models.record), "variant": ModelVariantType.Inpaint})
    denoise_mask = node.invoke(context).denoise_mask
    pixels = image_to_tensor(picture) * (context.tensors.load(denoise_mask.mask_name) >= 0.5)
    expected = pipeline.encode_image(sd1_parts["vae"], pixels, CPU, fp32=True)
    assert torch.allclose(context.tensors.load(denoise_mask.masked_latents_name), expected, atol=1e-5)
    node.unet = None
    assert node.invoke(context).denoise_mask.masked_latents_name is None
