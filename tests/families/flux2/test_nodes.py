"""FLUX.2 klein's nodes with a tiny model: parts of other models, images, references, LoRAs, bad input."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from invokeclone.components.denoisers.lora_fields import LoRANotApplicable
from invokeclone.components.separate_parts import MissingPart
from invokeclone.engine.cache import ModelCache
from invokeclone.families.flux2.fields import Flux2KleinModelLoaderOutput
from invokeclone.families.flux2.nodes.autoencoder import Flux2VaeDecodeInvocation, Flux2VaeEncodeInvocation
from invokeclone.families.flux2.nodes.denoise import Flux2DenoiseInvocation
from invokeclone.families.flux2.nodes.loras import Flux2KleinLoRACollectionLoader, Flux2KleinLoRALoaderInvocation
from invokeclone.families.flux2.nodes.models import Flux2KleinModelLoaderInvocation
from invokeclone.families.flux2.nodes.prompts import Flux2KleinTextEncoderInvocation
from invokeclone.graph.vocabulary.fields import DenoiseMaskField, LatentsField, TensorField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    Flux2VariantType,
    ModelFormat,
    ModelType,
    Qwen3VariantType,
)
from tests.fakes_context import FakeContext
from tests.tiny_transformers import context_with, original_flux2_names

WIDTH, HEIGHT = 96, 64


@pytest.fixture
def context(model_cache: ModelCache) -> FakeContext:
    return context_with(model_cache)


def add(
    context: FakeContext, folder: Path, variant: Flux2VariantType = Flux2VariantType.Klein4B
) -> ModelIdentifierField:
    identifier: ModelIdentifierField = context.models.add(
        folder, BaseModelType.Flux2, ModelType.Main, ModelFormat.Diffusers, variant=variant
    )
    return identifier


@pytest.fixture
def main(context: FakeContext, flux2_folder: Path) -> ModelIdentifierField:
    return add(context, flux2_folder)


@pytest.fixture
def model(context: FakeContext, main: ModelIdentifierField) -> Flux2KleinModelLoaderOutput:
    return Flux2KleinModelLoaderInvocation(model=main).invoke(context)


def encode(context: FakeContext, model: Flux2KleinModelLoaderOutput, prompt: str, **changes: Any) -> Any:
    inputs = {"qwen3_encoder": model.qwen3_encoder, "max_seq_len": 256, "prompt": prompt}
    return Flux2KleinTextEncoderInvocation(**{**inputs, **changes}).invoke(context).conditioning


@pytest.fixture
def denoise(context: FakeContext, model: Flux2KleinModelLoaderOutput) -> Any:
    """Make a denoise node with changes and return its latents."""
    inputs = {
        "positive_text_conditioning": encode(context, model, "a cat"),
        "transformer": model.transformer,
        "vae": model.vae,
        "width": WIDTH,
        "height": HEIGHT,
        "num_steps": 2,
        "seed": 7,
    }

    def run(**changes: Any) -> torch.Tensor:
        output = Flux2DenoiseInvocation(**{**inputs, **changes}).invoke(context)
        return context.tensors.load(output.latents.latents_name)

    return run


def stored(context: FakeContext, tensor: torch.Tensor) -> LatentsField:
    return LatentsField(latents_name=context.tensors.save(tensor))


def photo() -> Image.Image:
    return Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")


def differ(first: torch.Tensor, second: torch.Tensor) -> bool:
    return float((first - second).abs().mean()) > 0.01


def test_an_image_from_a_prompt(context: FakeContext, model: Flux2KleinModelLoaderOutput, denoise: Any) -> None:
    latents = denoise()
    assert (latents.dtype, latents.shape) == (torch.float32, (1, 32, HEIGHT // 8, WIDTH // 8))
    assert context.util.bases == {BaseModelType.Flux2}
    assert differ(latents, denoise(positive_text_conditioning=encode(context, model, "green")))
    Flux2VaeDecodeInvocation(latents=stored(context, latents), vae=model.vae).invoke(context)
    assert context.images.last().size == (WIDTH, HEIGHT)


def test_images_masks_references_regions_and_guidance(
    context: FakeContext, model: Flux2KleinModelLoaderOutput, denoise: Any
) -> None:
    plain, image = denoise(), context.images.put(photo())
    latents = Flux2VaeEncodeInvocation(image=image, vae=model.vae).invoke(context).latents
    original = context.tensors.load(latents.latents_name)
    mask = DenoiseMaskField(mask_name=context.tensors.save(torch.ones(1, 1, HEIGHT, WIDTH)), gradient=False)
    from_image = denoise(latents=latents, denoising_start=0.4)
    assert differ(from_image, plain)
    kept = denoise(latents=latents, denoising_start=0.4, denoise_mask=mask)
    torch.testing.assert_close(kept, original, atol=0.05, rtol=0.05)
    assert differ(denoise(kontext_conditioning=[{"image": image}]), plain)
    assert differ(denoise(cfg_scale=4.0, negative_text_conditioning=encode(context, model, "blurry")), plain)
    left = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    left[..., : WIDTH // 2] = True
    masks = [TensorField(tensor_name=context.tensors.save(area)) for area in (left, ~left)]
    prompts = [encode(context, model, text, mask=area) for text, area in zip(("a cat", "green"), masks, strict=True)]
    assert differ(denoise(positive_text_conditioning=prompts), plain)
    with pytest.raises(ValueError, match="empty list"):
        denoise(positive_text_conditioning=[])


def test_a_single_file_uses_installed_parts(
    context: FakeContext, flux2_folder: Path, flux2_parts: dict[str, Any], denoise: Any, tmp_path: Path
) -> None:
    save_file(original_flux2_names(flux2_parts["transformer"].state_dict()), tmp_path / "klein.safetensors")
    file = context.models.add(
        tmp_path / "klein.safetensors", BaseModelType.Flux2, ModelType.Main, ModelFormat.Checkpoint,
        variant=Flux2VariantType.Klein4BBase,
    )  # fmt: skip
    with pytest.raises(
        MissingPart, match=r"klein.safetensors comes without a Qwen3 text encoder \(qwen3_4b\).*Qwen3-4B-GGUF"
    ):
        Flux2KleinModelLoaderInvocation(model=file).invoke(context)
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(flux2_folder / part, tmp_path / "qwen3" / part)
    for name, variant in (("a small one", Qwen3VariantType.Qwen3_06B), ("qwen3", Qwen3VariantType.Qwen3_4B)):
        context.models.add(
            tmp_path / name, BaseModelType.Any, ModelType.Qwen3Encoder, ModelFormat.Qwen3Encoder, variant=variant
        )
    with pytest.raises(MissingPart, match=r"VAE of FLUX\.2.*vae_model"):
        Flux2KleinModelLoaderInvocation(model=file).invoke(context)
    context.models.add(flux2_folder / "vae", BaseModelType.Flux2, ModelType.VAE, ModelFormat.Diffusers)
    loaded = Flux2KleinModelLoaderInvocation(model=file).invoke(context)
    assert (loaded.qwen3_encoder.text_encoder.key, loaded.vae.vae.key) == ("qwen3", "vae")
    result = denoise(
        transformer=loaded.transformer, vae=loaded.vae, positive_text_conditioning=encode(context, loaded, "a cat")
    )
    torch.testing.assert_close(result, denoise(), atol=0.02, rtol=0.02)


def test_an_encoder_without_a_tokenizer_uses_that_of_another_model(
    context: FakeContext, main: ModelIdentifierField, flux2_folder: Path, tmp_path: Path
) -> None:
    encoder = context.models.add(
        tmp_path / "qwen3.safetensors", BaseModelType.Any, ModelType.Qwen3Encoder, ModelFormat.Checkpoint,
        variant=Qwen3VariantType.Qwen3_4B,
    )  # fmt: skip
    alone = add(context, flux2_folder / "transformer")
    inputs = {"model": alone, "vae_model": None, "qwen3_encoder_model": encoder}
    for changes in ({"model": main}, {"qwen3_source_model": main}):
        chosen = Flux2KleinModelLoaderInvocation(**{**inputs, **changes}).invoke(context).qwen3_encoder
        assert (chosen.text_encoder.key, chosen.tokenizer.key) == ("qwen3.safetensors", "tiny flux2")


def test_another_main_model_may_have_the_parts(
    context: FakeContext, main: ModelIdentifierField, flux2_folder: Path, cogview4_folder: Path
) -> None:
    alone = add(context, flux2_folder / "transformer")
    loaded = Flux2KleinModelLoaderInvocation(model=alone, qwen3_source_model=main).invoke(context)
    assert (loaded.qwen3_encoder.tokenizer.key, loaded.vae.vae.key) == ("tiny flux2", "tiny flux2")
    assert loaded.transformer.transformer.key == "transformer"
    other = context.models.add_main(cogview4_folder, BaseModelType.CogView4)
    with pytest.raises(ValueError, match="needs one of base flux2"):
        Flux2KleinModelLoaderInvocation(model=alone, qwen3_source_model=other).invoke(context)
    with pytest.raises(ValueError, match="select one of type vae"):
        Flux2KleinModelLoaderInvocation(model=main, vae_model=main).invoke(context)


def test_dev_models_have_a_loader_of_their_own(context: FakeContext, flux2_folder: Path) -> None:
    dev = add(context, flux2_folder, Flux2VariantType.Dev)
    with pytest.raises(ValueError, match=r"is a FLUX.2 dev model, .*: use flux2_dev_model_loader, or select another"):
        Flux2KleinModelLoaderInvocation(model=dev).invoke(context)


def add_lora(context: FakeContext, file: Path, base: BaseModelType = BaseModelType.Flux2) -> ModelIdentifierField:
    identifier: ModelIdentifierField = context.models.add(file, base, ModelType.LoRA, ModelFormat.LyCORIS)
    return identifier


def pair(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, columns, generator=generator), torch.randn(rows, 2, generator=generator)


def test_loras_apply_to_transformer_and_text_encoder(
    context: FakeContext, model: Flux2KleinModelLoaderOutput, denoise: Any, tmp_path: Path
) -> None:
    tensors = {}
    for name, size in (
        ("transformer.transformer_blocks.0.attn.to_q", (32, 32)),
        ("text_encoder.model.layers.0.mlp.down_proj", (16, 16)),
    ):
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = pair(*size, seed=1)
    save_file(tensors, tmp_path / "style.safetensors")
    lora = add_lora(context, tmp_path / "style.safetensors")
    single = Flux2KleinLoRALoaderInvocation(
        lora=lora, weight=2.0, transformer=model.transformer, qwen3_encoder=model.qwen3_encoder
    ).invoke(context)
    several = Flux2KleinLoRACollectionLoader(
        loras=[LoRAField(lora=lora, weight=2.0)], transformer=model.transformer, qwen3_encoder=model.qwen3_encoder
    ).invoke(context)
    assert (single.transformer, single.qwen3_encoder) == (several.transformer, several.qwen3_encoder)
    assert differ(denoise(transformer=single.transformer), denoise())
    changed, plain = (
        encode(context, model, "a cat", qwen3_encoder=encoder)
        for encoder in (single.qwen3_encoder, model.qwen3_encoder)
    )
    first, second = (
        context.conditioning.load(field.conditioning_name).conditionings[0].embeds for field in (changed, plain)
    )
    assert differ(first.float(), second.float())
    other = add_lora(context, tmp_path / "other.safetensors", BaseModelType.Flux)
    with pytest.raises(LoRANotApplicable, match="select one of the same base"):
        Flux2KleinLoRALoaderInvocation(lora=other, transformer=model.transformer).invoke(context)


def test_prompts_and_transformers_of_other_families_are_rejected(
    context: FakeContext, main: ModelIdentifierField, cogview4_folder: Path, denoise: Any
) -> None:
    from invokeclone.components.flux.conditioning import FLUXConditioningInfo
    from invokeclone.engine.conditioning import ConditioningFieldData

    info = FLUXConditioningInfo(torch.zeros(1, 8), torch.zeros(1, 4, 48))
    prompt = {"conditioning_name": context.conditioning.save(ConditioningFieldData([info]))}
    with pytest.raises(ValueError, match="positive_text_conditioning was made for another model"):
        denoise(positive_text_conditioning=prompt)
    other = context.models.add_main(cogview4_folder, BaseModelType.CogView4)
    transformer = {"transformer": other.model_copy(update={"submodel_type": "transformer"}), "loras": []}
    with pytest.raises(ValueError, match="tiny cogview4 is a cogview4 model"):
        denoise(transformer=transformer)
