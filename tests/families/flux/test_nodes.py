"""FLUX.1's nodes with tiny models: parts, images, references, controls, bad input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from invokeclone.components.flux.reference_sizes import PREFERRED_SIZES
from invokeclone.engine.cache import ModelCache
from invokeclone.families.flux.nodes.autoencoder import FluxVaeDecodeInvocation, FluxVaeEncodeInvocation
from invokeclone.families.flux.nodes.controls import (
    FluxControlNetInvocation,
    FluxIPAdapterInvocation,
    FluxReduxInvocation,
)
from invokeclone.families.flux.nodes.denoise import FluxDenoiseInvocation, FluxDenoiseLatentsMetaInvocation
from invokeclone.families.flux.nodes.images import (
    FluxFillInvocation,
    FluxKontextConcatenateImagesInvocation,
    FluxKontextInvocation,
)
from invokeclone.families.flux.nodes.models import FluxModelLoaderInvocation, FluxModelLoaderOutput
from invokeclone.families.flux.nodes.prompts import FluxTextEncoderInvocation
from invokeclone.graph.vocabulary.fields import DenoiseMaskField, ImageField, LatentsField, TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    ClipVariantType,
    FluxVariantType,
    ModelFormat,
    ModelType,
)
from invokeclone.kit.config.settings import Settings
from tests.fakes_context import FakeContext
from tests.families.flux.test_controls import adapter_file, make_controlnet
from tests.tiny_flux import make_transformer
from tests.tiny_transformers import context_with

WIDTH, HEIGHT = 96, 64


@pytest.fixture
def context(model_cache: ModelCache) -> FakeContext:
    return context_with(model_cache)


@pytest.fixture
def main(context: FakeContext, flux_folder: Path) -> ModelIdentifierField:
    identifier: ModelIdentifierField = context.models.add(
        flux_folder, BaseModelType.Flux, ModelType.Main, ModelFormat.Diffusers, variant=FluxVariantType.Dev
    )
    return identifier


@pytest.fixture
def model(context: FakeContext, main: ModelIdentifierField) -> FluxModelLoaderOutput:
    return FluxModelLoaderInvocation(model=main).invoke(context)


def encode(context: FakeContext, model: FluxModelLoaderOutput, prompt: str, **changes: Any) -> Any:
    inputs = {"clip": model.clip, "t5_encoder": model.t5_encoder, "t5_max_seq_len": 256, "prompt": prompt}
    return FluxTextEncoderInvocation(**{**inputs, **changes}).invoke(context).conditioning


@pytest.fixture
def denoise(context: FakeContext, model: FluxModelLoaderOutput) -> Any:
    """Make a denoise node with changes and return its latents."""
    inputs = {
        "positive_text_conditioning": encode(context, model, "a cat"),
        "transformer": model.transformer,
        "controlnet_vae": model.vae,
        "width": WIDTH,
        "height": HEIGHT,
        "num_steps": 3,
        "seed": 7,
    }

    def run(**changes: Any) -> torch.Tensor:
        output = FluxDenoiseInvocation(**{**inputs, **changes}).invoke(context)
        latents: torch.Tensor = context.tensors.load(output.latents.latents_name)
        return latents

    return run


def photo(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def image_field(context: FakeContext, image: Image.Image) -> ImageField:
    return ImageField(image_name=context.images.save(image=image).image_name)


def test_from_prompt_to_image(context: FakeContext, model: FluxModelLoaderOutput, denoise: Any) -> None:
    assert model.max_seq_len == 512
    latents = denoise()
    assert latents.shape == (1, 16, HEIGHT // 8, WIDTH // 8)
    assert latents.dtype == torch.bfloat16
    field = LatentsField(latents_name=context.tensors.save(latents))
    output = FluxVaeDecodeInvocation(latents=field, vae=model.vae).invoke(context)
    assert (output.width, output.height) == (WIDTH, HEIGHT)
    assert torch.equal(denoise(), latents)
    assert not torch.equal(denoise(seed=8), latents)
    assert not torch.equal(denoise(guidance=1.0), latents)
    assert not torch.equal(denoise(positive_text_conditioning=encode(context, model, "a dog")), latents)


def test_image_to_image_with_a_mask(context: FakeContext, model: FluxModelLoaderOutput, denoise: Any) -> None:
    image = image_field(context, photo())
    field = FluxVaeEncodeInvocation(image=image, vae=model.vae).invoke(context).latents
    original = context.tensors.load(field.latents_name)
    keep = torch.ones(1, 1, HEIGHT, WIDTH)
    keep[..., : WIDTH // 2] = 0.0
    mask = DenoiseMaskField(mask_name=context.tensors.save(keep), masked_latents_name=None, gradient=False)
    latents = denoise(latents=field, denoise_mask=mask, denoising_start=0.3)
    half = WIDTH // 16
    assert torch.allclose(latents[..., half:].float(), original[..., half:].float(), atol=0.02)
    assert not torch.allclose(latents[..., :half].float(), original[..., :half].float(), atol=0.2)


def test_schnell_has_no_shift_and_256_tokens(
    context: FakeContext, main: ModelIdentifierField, model: FluxModelLoaderOutput, denoise: Any
) -> None:
    dev = denoise()
    context.models.records[main.key].variant = FluxVariantType.Schnell
    assert FluxModelLoaderInvocation(model=main).invoke(context).max_seq_len == 256
    assert not torch.equal(denoise(), dev)


def test_a_negative_prompt(context: FakeContext, model: FluxModelLoaderOutput, denoise: Any) -> None:
    negative = {"negative_text_conditioning": encode(context, model, "blurry")}
    plain = denoise()
    assert torch.equal(denoise(**negative), plain)  # cfg_scale is 1
    guided = denoise(**negative, cfg_scale=3.0)
    assert not torch.equal(guided, plain)
    assert torch.equal(denoise(**negative, cfg_scale=[3.0, 3.0, 3.0]), guided)
    assert not torch.equal(denoise(**negative, cfg_scale=3.0, cfg_scale_start_step=1), guided)
    with pytest.raises(ValueError, match="needs negative_text_conditioning"):
        denoise(cfg_scale=3.0)


def test_regions(context: FakeContext, model: FluxModelLoaderOutput, denoise: Any) -> None:
    left = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    left[..., : WIDTH // 2] = True
    masks = [TensorField(tensor_name=context.tensors.save(mask)) for mask in (left, ~left)]
    prompts = [encode(context, model, text, mask=mask) for text, mask in zip(("a cat", "a dog"), masks, strict=True)]
    both = denoise(positive_text_conditioning=prompts)
    assert not torch.equal(both, denoise())
    assert not torch.equal(both, denoise(positive_text_conditioning=prompts[::-1]))


def test_kontext(context: FakeContext, denoise: Any) -> None:
    reference = FluxKontextInvocation(image=image_field(context, photo(72, 40))).invoke(context).kontext_cond
    one = denoise(kontext_conditioning=reference)
    assert one.shape == (1, 16, HEIGHT // 8, WIDTH // 8)
    assert not torch.equal(one, denoise())
    assert not torch.equal(denoise(kontext_conditioning=[reference, reference]), one)
    with pytest.raises(ValueError, match="kontext_conditioning needs a VAE"):
        denoise(kontext_conditioning=reference, controlnet_vae=None)


@pytest.mark.parametrize("preferred", [True, False])
def test_kontext_images_side_by_side(context: FakeContext, preferred: bool) -> None:
    images = [image_field(context, photo(100, 60)), image_field(context, photo(50, 120))]
    node = FluxKontextConcatenateImagesInvocation(images=images, use_preferred_resolution=preferred)
    output = node.invoke(context)
    if preferred:
        assert (output.width, output.height) in PREFERRED_SIZES
    else:
        assert (output.width, output.height) == (112, 48)  # 125 x 60 on the grid


def test_fill(context: FakeContext, model: FluxModelLoaderOutput, denoise: Any, tmp_path: Path) -> None:
    transformer = make_transformer(in_channels=384, out_channels=64)
    save_file(transformer.state_dict(), tmp_path / "fill.safetensors")
    fill_model = context.models.add(
        tmp_path / "fill.safetensors", BaseModelType.Flux, ModelType.Main, ModelFormat.Checkpoint, variant="dev_fill"
    )
    with pytest.raises(ValueError, match="comes without a"):
        FluxModelLoaderInvocation(model=fill_model).invoke(context)
    field = model.transformer.model_copy(update={"transformer": fill_model.part("transformer")})
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[..., 20:60] = True
    name = context.tensors.save(mask)
    node = FluxFillInvocation(image=image_field(context, photo()), mask=TensorField(tensor_name=name))
    conditioning = node.invoke(context).fill_cond
    latents = denoise(transformer=field, fill_conditioning=conditioning)
    assert latents.shape == (1, 16, HEIGHT // 8, WIDTH // 8)
    with pytest.raises(ValueError, match="connect fill_conditioning"):
        denoise(transformer=field)
    with pytest.raises(ValueError, match="is for FLUX"):
        denoise(fill_conditioning=conditioning)


def test_controlnet(context: FakeContext, denoise: Any, tmp_path: Path) -> None:
    save_file(make_controlnet().state_dict(), tmp_path / "control.safetensors")
    net = context.models.add(
        tmp_path / "control.safetensors", BaseModelType.Flux, ModelType.ControlNet, ModelFormat.Checkpoint
    )
    inputs = {"image": image_field(context, photo(200, 100)), "control_model": net}
    control = FluxControlNetInvocation(**inputs).invoke(context).control
    plain, controlled = denoise(), denoise(control=control)
    assert not torch.equal(controlled, plain)
    assert not torch.equal(denoise(control=[control, control]), controlled)
    off = FluxControlNetInvocation(**inputs, control_weight=[0.0, 0.0, 0.0]).invoke(context).control
    assert torch.equal(denoise(control=off), plain)
    with pytest.raises(ValueError, match="control needs a VAE"):
        denoise(control=control, controlnet_vae=None)
    context.models.records[net.key].base = BaseModelType.StableDiffusion1
    with pytest.raises(ValueError, match="is a sd-1 model: this node needs one of base flux"):
        denoise(control=control)


def test_ip_adapter(context: FakeContext, denoise: Any, tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=12, num_hidden_layers=1, num_attention_heads=2,
        image_size=224, patch_size=112,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip-vit-large-patch14")
    encoder = context.models.add(
        tmp_path / "clip-vit-large-patch14", BaseModelType.Any, ModelType.CLIPVision, ModelFormat.Diffusers
    )
    adapter = context.models.add(
        adapter_file(tmp_path), BaseModelType.Flux, ModelType.IPAdapter, ModelFormat.Checkpoint
    )
    inputs = {"image": image_field(context, photo(80, 80)), "ip_adapter_model": adapter}
    field = FluxIPAdapterInvocation(**inputs).invoke(context).ip_adapter
    assert field.image_encoder_model.key == encoder.key
    plain, prompted = denoise(), denoise(ip_adapter=field)
    assert not torch.equal(prompted, plain)
    assert torch.equal(denoise(ip_adapter=field.model_copy(update={"weight": 0.0})), plain)
    two = field.model_copy(update={"image": [field.image, field.image]})
    with pytest.raises(ValueError, match="take one image, not 2"):
        denoise(ip_adapter=two)


def test_redux(context: FakeContext, denoise: Any, tmp_path: Path) -> None:
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    save_file(ReduxImageEncoder(16, 24).state_dict(), tmp_path / "redux.safetensors")
    redux = context.models.add(
        tmp_path / "redux.safetensors", BaseModelType.Flux, ModelType.FluxRedux, ModelFormat.Checkpoint
    )
    inputs = {"image": image_field(context, photo(80, 80)), "redux_model": redux}
    with pytest.raises(ValueError, match="needs a SigLIP model"):
        FluxReduxInvocation(**inputs).invoke(context)
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    SiglipVisionModel(config).save_pretrained(tmp_path / "siglip")
    context.models.add(tmp_path / "siglip", BaseModelType.Any, ModelType.SigLIP, ModelFormat.Diffusers)
    field = FluxReduxInvocation(**inputs).invoke(context).redux_cond
    assert context.tensors.load(field.conditioning.tensor_name).shape == (1, 16, 24)
    whole = denoise(redux_conditioning=field)
    assert not torch.equal(whole, denoise())
    fewer = FluxReduxInvocation(**inputs, downsampling_factor=2, weight=0.5).invoke(context).redux_cond
    assert context.tensors.load(fewer.conditioning.tensor_name).shape == (1, 4, 24)
    assert not torch.equal(denoise(redux_conditioning=[field, fewer]), whole)


def test_metadata_of_the_run(context: FakeContext, model: FluxModelLoaderOutput) -> None:
    node = FluxDenoiseLatentsMetaInvocation(
        positive_text_conditioning=encode(context, model, "a cat"), transformer=model.transformer, width=WIDTH,
        height=HEIGHT, num_steps=2, seed=5, guidance=2.5,
    )  # fmt: skip
    metadata = node.invoke(context).metadata.root
    assert {name: metadata[name] for name in ("width", "height", "steps", "seed", "guidance", "scheduler")} == {
        "width": WIDTH, "height": HEIGHT, "steps": 2, "seed": 5, "guidance": 2.5, "scheduler": "euler",
    }  # fmt: skip


def test_large_images_scale_their_positions(denoise: Any) -> None:
    size = {"width": 1536, "height": 16, "num_steps": 1}
    plain = denoise(**size)
    assert torch.equal(denoise(**size, dype_preset="auto"), plain)  # up to 1536 pixels
    assert not torch.equal(denoise(**size, dype_preset="manual"), plain)
    assert torch.equal(denoise(dype_preset="manual"), denoise())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 16, "height": 0}, "positive multiples of 16"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"denoising_start": 0.5}, "needs latents"),
        ({"positive_text_conditioning": []}, "empty list"),
        ({"cfg_scale": []}, "cfg_scale must be"),
    ],
)
def test_bad_input_is_named(denoise: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(**changes)


def test_images_are_resized_by_pil(context: FakeContext) -> None:
    """As in InvokeAI, whose levels are bytes between the two; a plain interpolation overshoots 0 and 255."""
    from invokeclone.families.flux.nodes.images import image_pixels

    image = photo(200, 100)
    expected = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = image_pixels(context, image_field(context, image), (WIDTH, HEIGHT))
    assert torch.allclose((pixels[0].permute(1, 2, 0) + 1) * 127.5, torch.from_numpy(expected), atol=1e-3)
    assert image_pixels(context, image_field(context, image)).shape == (1, 3, 100, 200)


def test_models_of_other_families_are_named(
    context: FakeContext, model: FluxModelLoaderOutput, main: ModelIdentifierField, denoise: Any, tmp_path: Path
) -> None:
    clip_g = context.models.add(
        tmp_path, BaseModelType.Any, ModelType.CLIPEmbed, ModelFormat.Diffusers, variant=ClipVariantType.G
    )
    with pytest.raises(ValueError, match="is not a CLIP-L text encoder"):
        FluxModelLoaderInvocation(model=main, clip_embed_model=clip_g).invoke(context)
    context.models.records[main.key].base = BaseModelType.StableDiffusion3
    with pytest.raises(ValueError, match="this node needs one of base flux"):
        FluxModelLoaderInvocation(model=main).invoke(context)
    with pytest.raises(ValueError, match="this node needs one of base flux"):
        denoise()


def test_conditioning_of_another_family(context: FakeContext, denoise: Any) -> None:
    from invokeclone.engine.conditioning import ConditioningFieldData
    from invokeclone.families.sd3.conditioning import SD3ConditioningInfo

    zeros = torch.zeros(1, 4)
    name = context.conditioning.save(ConditioningFieldData([SD3ConditioningInfo(zeros, zeros, zeros, zeros, None)]))
    with pytest.raises(ValueError, match="made for another model"):
        denoise(positive_text_conditioning={"conditioning_name": name})


def test_the_first_block_cache_is_a_setting(context: FakeContext, denoise: Any) -> None:
    expected = denoise()
    for threshold, same in ((0.0, True), (1.0, False)):
        context.config.settings = Settings(first_block_cache_threshold=threshold)
        assert torch.equal(denoise(), expected) is same


def test_tiled_decoding_is_a_setting(context: FakeContext, model: FluxModelLoaderOutput) -> None:
    name = context.tensors.save(torch.randn(1, 16, 16, 24, generator=torch.Generator().manual_seed(1)))
    sizes: list[int] = []
    vae = context.models.load(model.vae.vae).model
    hook = vae.decoder.conv_in.register_forward_hook(lambda *details: sizes.append(details[2].shape[-1]))
    try:
        for tiled, expected in ((False, 24), (True, 8)):
            context.config.settings = Settings(force_tiled_decode=tiled)
            sizes.clear()
            FluxVaeDecodeInvocation(latents=LatentsField(latents_name=name), vae=model.vae).invoke(context)
            assert max(sizes) == expected
    finally:
        hook.remove()


def test_encoders_of_a_stable_diffusion_3_model(
    context: FakeContext, main: ModelIdentifierField, model: FluxModelLoaderOutput, sd3_folder: Path, tmp_path: Path
) -> None:
    """InvokeAI's web UI lists main models that include an encoder among the encoders."""
    sd3 = context.models.add_main(sd3_folder, BaseModelType.StableDiffusion3)
    mixed = FluxModelLoaderInvocation(model=main, t5_encoder_model=sd3, clip_embed_model=sd3).invoke(context)
    assert mixed.t5_encoder.text_encoder == sd3.part("text_encoder_3")
    assert mixed.clip.tokenizer == sd3.part("tokenizer")
    text = context.conditioning.load(encode(context, mixed, "a cat").conditioning_name).conditionings[0]
    assert text.clip_embeds.shape == (1, 24)
    assert text.t5_embeds.shape == (1, 256, 64)
    own = FluxModelLoaderInvocation(model=main, t5_encoder_model=main, clip_embed_model=main).invoke(context)
    assert own == model
    with pytest.raises(ValueError, match="is a model of type main: select one of type t5_encoder"):
        without = context.models.add_main(tmp_path, BaseModelType.StableDiffusion3)
        FluxModelLoaderInvocation(model=main, t5_encoder_model=without).invoke(context)
