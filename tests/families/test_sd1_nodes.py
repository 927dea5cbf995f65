"""Stable Diffusion 1's nodes, from the model's name to the picture, in a context of fakes."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from invokeclone.families.sd1.nodes.autoencoder import ImageToLatentsInvocation, LatentsToImageInvocation
from invokeclone.families.sd1.nodes.denoise import DenoiseLatentsInvocation, DenoiseLatentsMetaInvocation
from invokeclone.families.sd1.nodes.latents import (
    BlendLatentsInvocation,
    CropLatentsCoreInvocation,
    NoiseInvocation,
    ResizeLatentsInvocation,
    ScaleLatentsInvocation,
    SchedulerInvocation,
)
from invokeclone.families.sd1.nodes.masks import CreateDenoiseMaskInvocation, CreateGradientMaskInvocation
from invokeclone.families.sd1.nodes.models import (
    CLIPSkipInvocation,
    FreeUInvocation,
    IdealSizeInvocation,
    MainModelLoaderInvocation,
    ModelIdentifierInvocation,
    SeamlessModeInvocation,
    UnknownModel,
    VAELoaderInvocation,
    ideal_size,
)
from invokeclone.families.sd1.nodes.prompts import CompelInvocation, NotSupportedYet
from invokeclone.graph.adapter_fields import ControlField
from invokeclone.graph.context import CanceledException
from invokeclone.graph.fields import ImageField, LatentsField, MetadataField, TensorField
from invokeclone.graph.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.taxonomy import BaseModelType, ImageCategory, ModelVariantType, SubModelType


@pytest.fixture
def parts_of(context: Any, identifier: ModelIdentifierField) -> Any:
    return MainModelLoaderInvocation(model=identifier).invoke(context)


@pytest.mark.parametrize("wanted", [False, True])
def test_a_prompt_s_tokens_are_logged_where_that_is_wanted(context: Any, parts_of: Any, wanted: bool) -> None:
    told: list[str] = []
    context.logger = SimpleNamespace(info=told.append)
    context.settings = context.settings.model_copy(update={"log_tokenization": wanted})
    CompelInvocation(prompt="a (cat)1.2", clip=parts_of.clip).invoke(context)
    assert len(told) == wanted
    if wanted:
        assert "of the prompt 'a (cat)1.2'" in told[0]
        assert "\n1.2: " in told[0]


@pytest.fixture
def denoise(context: Any, parts_of: Any) -> Any:
    """Make a denoise node that is connected as in the usual graph."""
    positive, negative = (
        CompelInvocation(prompt=prompt, clip=parts_of.clip).invoke(context).conditioning for prompt in ("a cat", "")
    )
    noise = NoiseInvocation(seed=3, width=64, height=48).invoke(context).noise

    def make(cls: Any = DenoiseLatentsInvocation, **changes: Any) -> Any:
        usual = {
            "positive_conditioning": positive,
            "negative_conditioning": [negative],
            "noise": noise,
            "unet": parts_of.unet,
            "steps": 4,
        }
        return cls(**{**usual, **changes})

    return make


def save(context: Any, tensor: torch.Tensor) -> LatentsField:
    return LatentsField(latents_name=context.tensors.save(tensor), seed=9)


def test_a_picture_from_a_prompt(context: Any, parts_of: Any, denoise: Any):
    found = denoise().invoke(context)
    assert (found.width, found.height, found.latents.seed) == (64, 48, None)
    image = LatentsToImageInvocation(latents=found.latents, vae=parts_of.vae, fp32=True).invoke(context)
    assert (image.width, image.height) == (64, 48)
    assert context.images.kept[image.image.image_name].mode == "RGB"
    parts = ["text_encoder", "tokenizer"] * 2 + ["unet", "scheduler", "vae"]
    assert context.models.loaded == parts
    assert context.util.messages == ["Building conditioning", "Building conditioning", "Running VAE decoder"]
    assert [(state.step, state.total_steps) for state in context.util.states] == [(n, 4) for n in range(5)]
    assert context.util.bases == {BaseModelType.StableDiffusion1}
    again = denoise().invoke(context)
    assert torch.equal(
        context.tensors.load(again.latents.latents_name), context.tensors.load(found.latents.latents_name)
    )


def test_the_parts_of_a_model_are_names(context: Any, parts_of: Any, identifier: ModelIdentifierField):
    assert parts_of.unet.unet == identifier.model_copy(update={"submodel_type": SubModelType.UNet})
    assert parts_of.unet.scheduler.submodel_type == SubModelType.Scheduler
    assert parts_of.clip.tokenizer.submodel_type == SubModelType.Tokenizer
    assert parts_of.clip.text_encoder.submodel_type == SubModelType.TextEncoder
    assert parts_of.vae.vae.submodel_type == SubModelType.VAE
    assert (parts_of.unet.loras, parts_of.clip.skipped_layers, parts_of.vae.seamless_axes) == ([], 0, [])
    assert VAELoaderInvocation(vae_model=identifier).invoke(context).vae.vae == identifier
    assert ModelIdentifierInvocation(model=identifier).invoke(context).model == identifier


def test_a_model_without_a_record(context: Any, identifier: ModelIdentifierField):
    gone = identifier.model_copy(update={"key": "gone"})
    for node in (
        MainModelLoaderInvocation(model=gone),
        VAELoaderInvocation(vae_model=gone),
        ModelIdentifierInvocation(model=gone),
    ):
        with pytest.raises(UnknownModel, match="gone"):
            node.invoke(context)


def test_what_is_put_on_names(context: Any, parts_of: Any):
    skipped = CLIPSkipInvocation(clip=parts_of.clip, skipped_layers=1).invoke(context).clip
    assert CLIPSkipInvocation(clip=skipped, skipped_layers=2).invoke(context).clip.skipped_layers == 3
    assert parts_of.clip.skipped_layers == 0
    seamless = SeamlessModeInvocation(unet=parts_of.unet, vae=None, seamless_y=False).invoke(context)
    assert seamless.unet.seamless_axes == ["x"]
    assert seamless.vae is None
    freed = FreeUInvocation(unet=parts_of.unet).invoke(context).unet.freeu_config
    assert (freed.b1, freed.b2, freed.s1, freed.s2) == (1.2, 1.4, 0.9, 0.2)
    assert SchedulerInvocation(scheduler="lcm").invoke(context).scheduler == "lcm"


@pytest.mark.parametrize(
    ("aspect", "side", "size"),
    [(1.0, 512, (512, 512)), (1024 / 576, 512, (680, 384)), (0.5, 512, (360, 720)), (8.0, 512, (2048, 256))],
)
def test_ideal_sizes(aspect: float, side: float, size: tuple[int, int]):
    assert ideal_size(aspect, side) == size


def test_the_ideal_size_is_the_models(context: Any, parts_of: Any):
    found = IdealSizeInvocation(width=100, height=100, unet=parts_of.unet, multiplier=1.5).invoke(context)
    assert (found.width, found.height) == (768, 768)


def test_noise_is_that_of_torch(context: Any):
    found = NoiseInvocation(seed=5, width=64, height=32).invoke(context)
    expected = torch.randn((1, 4, 4, 8), generator=torch.Generator().manual_seed(5))
    assert torch.equal(context.tensors.load(found.noise.latents_name), expected)
    assert (found.noise.seed, found.width, found.height) == (5, 64, 32)
    on_device = NoiseInvocation(seed=5, width=64, height=32, use_cpu=False).invoke(context)
    assert torch.equal(context.tensors.load(on_device.noise.latents_name), expected)
    with pytest.raises(NotSupportedYet, match="FLUX"):
        NoiseInvocation(noise_type="FLUX").invoke(context)
    with pytest.raises(ValidationError):
        NoiseInvocation(width=65)


def test_canceling(context: Any, denoise: Any):
    context.util.cancel_at = 2
    with pytest.raises(CanceledException):
        denoise(steps=30).invoke(context)
    assert len(context.util.states) == 3
    unet = context.models.cache.get("tiny:unet", lambda: pytest.fail("it is loaded"))
    assert unet.locks == 0


def test_what_is_not_there_yet_is_refused_by_name(context: Any, denoise: Any, parts_of: Any, identifier: Any):
    lora = LoRAField(lora=identifier.model_copy(update={"name": "frame"}), weight=0.5)
    with pytest.raises(NotSupportedYet, match="frame"):
        denoise(unet=parts_of.unet.model_copy(update={"loras": [lora]})).invoke(context)
    with pytest.raises(NotSupportedYet, match="LoRA"):
        CompelInvocation(clip=parts_of.clip.model_copy(update={"loras": [lora]})).invoke(context)
    control = ControlField(image=ImageField(image_name="x"), control_model=identifier)
    with pytest.raises(NotSupportedYet, match="ControlNets and HiDiffusion"):
        denoise(control=control, hidiffusion=True).invoke(context)


@pytest.mark.parametrize("scale", [0.5, [2.0, 0.9], []])
def test_guidance_below_one_is_refused(denoise: Any, scale: Any):
    with pytest.raises(ValidationError, match="at least 1"):
        denoise(cfg_scale=scale)


def test_denoising_tells_its_parameters(context: Any, denoise: Any):
    node = denoise(DenoiseLatentsMetaInvocation, metadata=MetadataField({"positive_prompt": "a cat", "steps": 1}))
    found = node.invoke(context)
    told = found.metadata.root
    assert (told["steps"], told["seed"], told["scheduler"], told["positive_prompt"]) == (4, 3, "euler", "a cat")
    assert told["model"]["key"] == "tiny"
    assert told["width"] == found.width == 64


def test_a_prompt_for_a_region(context: Any, denoise: Any, parts_of: Any):
    mask = torch.zeros(1, 48, 64, dtype=torch.bool)
    mask[..., :32] = True
    field = TensorField(tensor_name=context.tensors.save(mask))
    left = CompelInvocation(prompt="a dog", clip=parts_of.clip, mask=field).invoke(context).conditioning
    assert left.mask == field
    usual = denoise()
    found = denoise(positive_conditioning=[usual.positive_conditioning, left]).invoke(context)
    assert context.tensors.load(found.latents.latents_name).isfinite().all()


def test_from_picture_to_picture_with_a_mask(context: Any, denoise: Any, parts_of: Any):
    picture = context.images.save(Image.linear_gradient("L").resize((64, 48)).convert("RGB"))
    mask = Image.new("L", (64, 48), 255)
    mask.paste(0, (0, 0, 32, 48))
    field = ImageField(image_name=context.images.save(mask).image_name)
    image = ImageField(image_name=picture.image_name)
    latents = ImageToLatentsInvocation(image=image, vae=parts_of.vae).invoke(context)
    assert (latents.width, latents.height, latents.latents.seed) == (64, 48, None)
    made = CreateDenoiseMaskInvocation(vae=parts_of.vae, image=image, mask=field).invoke(context).denoise_mask
    assert not made.gradient
    assert context.tensors.load(made.masked_latents_name).shape == (1, 4, 6, 8)
    found = denoise(latents=latents.latents, denoise_mask=made, denoising_start=0.2).invoke(context)
    before, after = (context.tensors.load(name) for name in (latents.latents.latents_name, found.latents.latents_name))
    assert torch.allclose(after[..., 5:], before[..., 5:], atol=1e-6)
    assert not torch.allclose(after[..., :3], before[..., :3], atol=1e-2)
    plain = CreateDenoiseMaskInvocation(vae=parts_of.vae, mask=field).invoke(context).denoise_mask
    assert plain.masked_latents_name is None


@pytest.mark.parametrize("mode", ["Gaussian Blur", "Box Blur", "Staged"])
def test_gradient_masks(context: Any, mode: str):
    mask = Image.new("L", (128, 64), 255)
    mask.paste(0, (0, 0, 32, 64))
    field = ImageField(image_name=context.images.save(mask).image_name)
    made = CreateGradientMaskInvocation(mask=field, edge_radius=16, coherence_mode=mode).invoke(context)
    assert made.denoise_mask.gradient
    assert made.denoise_mask.masked_latents_name is None
    row = context.tensors.load(made.denoise_mask.mask_name)[0, 0, 32]
    assert not row[:32].any()
    assert (row[64:] == 1).all()
    assert (row.diff() >= 0).all()
    assert 0 < row[40] < 1
    area = context.images.kept[made.expanded_mask_area.image_name]
    assert area.mode == "L"
    assert area.getpixel((40, 32)) == 0
    assert area.getpixel((100, 32)) == 255
    assert context.images.categories[-1] == ImageCategory.MASK
    at_least = CreateGradientMaskInvocation(mask=field, coherence_mode=mode, minimum_denoise=0.5).invoke(context)
    assert context.tensors.load(at_least.denoise_mask.mask_name)[0, 0, 32, 40] == pytest.approx(row[40] / 2)
    hard = CreateGradientMaskInvocation(mask=field, edge_radius=0).invoke(context)
    assert set(context.tensors.load(hard.denoise_mask.mask_name).unique().tolist()) == {0.0, 1.0}


def test_an_inpainting_model_gets_the_masked_picture(context: Any, parts_of: Any):
    mask, picture = (
        ImageField(image_name=context.images.save(Image.new(m, (64, 64))).image_name) for m in ("L", "RGB")
    )
    node = CreateGradientMaskInvocation(mask=mask, image=picture, vae=parts_of.vae, unet=parts_of.unet)
    assert node.invoke(context).denoise_mask.masked_latents_name is None
    context.models.record = SimpleNamespace(**{**vars(context.models.record), "variant": ModelVariantType.Inpaint})
    assert node.invoke(context).denoise_mask.masked_latents_name


def test_reshaping_latents(context: Any):
    latents = torch.arange(4 * 8 * 8, dtype=torch.float32).reshape(1, 4, 8, 8)
    field = save(context, latents)
    resized = ResizeLatentsInvocation(latents=field, width=128, height=64, mode="nearest").invoke(context)
    assert (resized.width, resized.height, resized.latents.seed) == (128, 64, 9)
    scaled = ScaleLatentsInvocation(latents=field, scale_factor=0.5, mode="area", antialias=True).invoke(context)
    assert (scaled.width, scaled.height) == (32, 32)
    with pytest.raises(ValueError, match="not for pictures"):
        ScaleLatentsInvocation(latents=field, scale_factor=2, mode="trilinear").invoke(context)
    cropped = CropLatentsCoreInvocation(latents=field, x=8, y=16, width=24, height=32).invoke(context)
    assert torch.equal(context.tensors.load(cropped.latents.latents_name), latents[..., 2:6, 1:4])
    with pytest.raises(ValueError, match="outside"):
        CropLatentsCoreInvocation(latents=field, x=640, y=0, width=8, height=8).invoke(context)


def test_blending_latents(context: Any):
    first, second = (torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    a, b = save(context, first), save(context, second)

    def blended(**changes: Any) -> torch.Tensor:
        node = BlendLatentsInvocation(**{"latents_a": a, "latents_b": b, **changes})
        return context.tensors.load(node.invoke(context).latents.latents_name)

    assert torch.allclose(blended(alpha=0), first, atol=1e-5)
    assert torch.allclose(blended(alpha=1), second, atol=1e-5)
    assert blended(alpha=0.5).std() == pytest.approx(1, abs=0.15), "a spherical blend keeps the amount of noise"
    assert torch.allclose(blended(latents_b=a), first, atol=1e-5)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    half = blended(alpha=1, mask=ImageField(image_name=context.images.save(mask).image_name))
    assert torch.allclose(half[..., :3], second[..., :3], atol=1e-5)
    assert torch.allclose(half[..., 5:], first[..., 5:], atol=1e-5)
    with pytest.raises(ValueError, match="same shape"):
        blended(latents_b=save(context, torch.zeros(1, 4, 2, 2)))


def test_colour_compensation_is_not_there_yet(context: Any, parts_of: Any):
    node = ImageToLatentsInvocation(image=ImageField(image_name="x"), vae=parts_of.vae, color_compensation="SDXL")
    with pytest.raises(NotSupportedYet, match="SDXL"):
        node.invoke(context)


def test_nodes_do_not_load_torch_by_themselves():
    import subprocess

    code = (
        "import sys; from invokeclone.graph import registry; registry.discover();"
        "assert 'denoise_latents' in registry.nodes(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
