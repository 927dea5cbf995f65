"""FLUX.2 dev: its nodes with a tiny model, and its pipeline against diffusers'."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from invokeclone.components.autoencoders.kl_flux2 import statistics_of
from invokeclone.components.flux.tokens import unpack
from invokeclone.components.separate_parts import MissingPart
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.families.flux2 import pipeline
from invokeclone.families.flux2.conditioning import Flux2Prompt
from invokeclone.families.flux2.fields import Flux2DevModelLoaderOutput
from invokeclone.families.flux2.nodes.denoise import Flux2DenoiseInvocation
from invokeclone.families.flux2.nodes.loras import Flux2DevLoRACollectionLoader, Flux2DevLoRALoaderInvocation
from invokeclone.families.flux2.nodes.models import Flux2DevModelLoaderInvocation
from invokeclone.families.flux2.nodes.prompts import Flux2DevTextEncoderInvocation
from invokeclone.families.flux2.reference_images import encode_references
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Flux2VariantType, ModelFormat, ModelType
from tests.fakes_context import FakeContext
from tests.tiny_transformers import context_with, original_flux2_names

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 64
MU = 2.02


@pytest.fixture
def reference(flux2_dev_parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make diffusers' pipeline, with the shift of InvokeAI, which does not depend on the image's size."""
    from diffusers.pipelines.flux2 import pipeline_flux2

    monkeypatch.setattr(pipeline_flux2, "compute_empirical_mu", lambda **_: MU)
    made = pipeline_flux2.Flux2Pipeline(**flux2_dev_parts)
    made.set_progress_bar_config(disable=True)
    return made


def test_latents_match_diffusers(flux2_dev_parts: dict[str, Any], reference: Any) -> None:
    parts = flux2_dev_parts
    language_model = parts["text_encoder"].model.language_model
    info = pipeline.encode_dev(parts["tokenizer"], language_model, "a red fox", 512, CPU)
    with torch.inference_mode():
        embeds = reference.encode_prompt("a red fox", max_sequence_length=512)[0]
    torch.testing.assert_close(info.embeds, embeds)
    noise = torch.randn((1, 32, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(5), dtype=torch.half)
    squares = torch.nn.functional.pixel_unshuffle(noise.float(), 2)
    image = Image.linear_gradient("L").resize((80, 64)).convert("RGB")
    results = []
    for images, guidance in (([], 2.5), ([image], 4.0)):
        task = pipeline.Flux2Task(
            FlowInputs(width=WIDTH, height=HEIGHT, steps=3, seed=5),
            Flux2Prompt(info.embeds),
            None,
            statistics_of(parts["vae"]),
            guidance=guidance,
            references=encode_references(parts["vae"], images, CPU),
        )
        result = pipeline.denoise(parts["transformer"], task, CPU, [].append)
        tokens = reference(
            prompt_embeds=embeds, width=WIDTH, height=HEIGHT, num_inference_steps=3, guidance_scale=guidance,
            latents=squares, output_type="latent", image=images or None,
        ).images  # fmt: skip
        expected = statistics_of(parts["vae"]).denormalize(unpack(tokens, HEIGHT // 8, WIDTH // 8))
        torch.testing.assert_close(result, expected, atol=5e-5, rtol=1e-4)
        results.append(result)
    assert (results[0] - results[1]).abs().mean() > 0.01


@pytest.fixture
def context(model_cache: ModelCache) -> FakeContext:
    return context_with(model_cache)


def add(context: FakeContext, path: Path, variant: Flux2VariantType = Flux2VariantType.Dev) -> ModelIdentifierField:
    form = ModelFormat.Diffusers if path.is_dir() else ModelFormat.Checkpoint
    identifier: ModelIdentifierField = context.models.add(
        path, BaseModelType.Flux2, ModelType.Main, form, variant=variant
    )
    return identifier


@pytest.fixture
def model(context: FakeContext, flux2_dev_folder: Path) -> Flux2DevModelLoaderOutput:
    return Flux2DevModelLoaderInvocation(model=add(context, flux2_dev_folder)).invoke(context)


def encode(context: FakeContext, model: Flux2DevModelLoaderOutput, prompt: str, **changes: Any) -> Any:
    inputs = {"mistral_encoder": model.mistral_encoder, "max_seq_len": 256, "prompt": prompt}
    return Flux2DevTextEncoderInvocation(**{**inputs, **changes}).invoke(context).conditioning


def embeds_of(context: FakeContext, conditioning: Any) -> torch.Tensor:
    embeds: torch.Tensor = context.conditioning.load(conditioning.conditioning_name).conditionings[0].embeds
    return embeds


def denoise(context: FakeContext, model: Flux2DevModelLoaderOutput, **changes: Any) -> torch.Tensor:
    inputs = {"transformer": model.transformer, "vae": model.vae, "width": WIDTH, "height": HEIGHT, "num_steps": 2}
    output = Flux2DenoiseInvocation(**{**inputs, "seed": 7, **changes}).invoke(context)
    return context.tensors.load(output.latents.latents_name)


def differ(first: torch.Tensor, second: torch.Tensor) -> bool:
    return float((first.float() - second.float()).abs().mean()) > 0.005


def test_guidance_negative_prompts_and_loras(
    context: FakeContext, model: Flux2DevModelLoaderOutput, tmp_path: Path
) -> None:
    prompt = encode(context, model, "a cat")
    assert embeds_of(context, prompt).shape == (1, 256, 96)
    plain = denoise(context, model, positive_text_conditioning=prompt)
    assert differ(denoise(context, model, positive_text_conditioning=prompt, guidance=9.0), plain)
    negative = {"cfg_scale": 4.0, "negative_text_conditioning": encode(context, model, "blurry")}
    assert differ(denoise(context, model, positive_text_conditioning=prompt, **negative), plain)
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in (
        "transformer.transformer_blocks.0.attn.to_q",
        "text_encoder.model.language_model.layers.0.mlp.up_proj",
    ):
        for side, shape in (("A", (2, 32)), ("B", (32, 2))):
            tensors[f"{name}.lora_{side}.weight"] = torch.randn(shape, generator=generator)
    save_file(tensors, tmp_path / "style.safetensors")
    lora = context.models.add(tmp_path / "style.safetensors", BaseModelType.Flux2, ModelType.LoRA, ModelFormat.LyCORIS)
    fields = {"transformer": model.transformer, "mistral_encoder": model.mistral_encoder}
    single = Flux2DevLoRALoaderInvocation(lora=lora, weight=2.0, **fields).invoke(context)
    several = Flux2DevLoRACollectionLoader(loras=[LoRAField(lora=lora, weight=2.0)], **fields).invoke(context)
    assert (single.transformer, single.mistral_encoder) == (several.transformer, several.mistral_encoder)
    assert differ(denoise(context, model, positive_text_conditioning=prompt, transformer=single.transformer), plain)
    changed = encode(context, model, "a cat", mistral_encoder=single.mistral_encoder)
    assert differ(embeds_of(context, changed), embeds_of(context, prompt))


def test_a_single_file_uses_installed_parts(
    context: FakeContext, flux2_dev_folder: Path, flux2_dev_parts: dict[str, Any], tmp_path: Path
) -> None:
    save_file(original_flux2_names(flux2_dev_parts["transformer"].state_dict()), tmp_path / "dev.safetensors")
    file = add(context, tmp_path / "dev.safetensors")
    with pytest.raises(
        MissingPart, match=r"dev.safetensors comes without a Mistral text encoder.*Mistral-Small-3.2-24B.*GGUF::Mis"
    ):
        Flux2DevModelLoaderInvocation(model=file).invoke(context)
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(flux2_dev_folder / part, tmp_path / "mistral" / part)
    context.models.add(tmp_path / "mistral", BaseModelType.Any, ModelType.MistralEncoder, ModelFormat.MistralEncoder)
    with pytest.raises(MissingPart, match=r"VAE of FLUX\.2.*vae_model"):
        Flux2DevModelLoaderInvocation(model=file).invoke(context)
    context.models.add(flux2_dev_folder / "vae", BaseModelType.Flux2, ModelType.VAE, ModelFormat.Diffusers)
    parts = Flux2DevModelLoaderInvocation(model=file).invoke(context)
    assert (parts.mistral_encoder.text_encoder.key, parts.vae.vae.key) == ("mistral", "vae")
    whole = Flux2DevModelLoaderInvocation(model=add(context, flux2_dev_folder)).invoke(context)
    results = [
        denoise(context, model, positive_text_conditioning=encode(context, model, "a cat")) for model in (parts, whole)
    ]
    torch.testing.assert_close(*results, atol=0.02, rtol=0.02)


def test_unsuitable_models_are_rejected(context: FakeContext, flux2_dev_folder: Path, flux2_folder: Path) -> None:
    dev, klein = add(context, flux2_dev_folder), add(context, flux2_folder, Flux2VariantType.Klein4B)
    message = "tiny flux2 is a FLUX.2 klein model, .*: use flux2_klein_model_loader, or select another"
    for inputs in ({"model": klein}, {"model": dev, "mistral_source_model": klein}):
        with pytest.raises(ValueError, match=message):
            Flux2DevModelLoaderInvocation(**inputs).invoke(context)
    with pytest.raises(ValueError, match="select one of type mistral_encoder"):
        Flux2DevModelLoaderInvocation(model=dev, mistral_encoder_model=klein).invoke(context)
