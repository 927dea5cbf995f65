"""Stable Diffusion XL and its refiner with tiny networks, against diffusers' own pipelines."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.clip.encode import skip_layers
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import loaders
from invokeclone.engine.schedules import discrete
from invokeclone.families.stable_diffusion import multi_diffusion, pipeline, prompts, single_files
from invokeclone.families.stable_diffusion.conditioning import (
    BasicConditioningInfo,
    SDXLConditioningInfo,
    TextConditioning,
)
from invokeclone.families.stable_diffusion.nodes.denoise import DenoiseLatentsInvocation
from invokeclone.families.stable_diffusion.nodes.models import CLIPSkipInvocation
from invokeclone.families.stable_diffusion.nodes.sdxl import (
    SDXLCompelPromptInvocation,
    SDXLModelLoaderInvocation,
    SDXLRefinerCompelPromptInvocation,
    SDXLRefinerModelLoaderInvocation,
)
from invokeclone.families.stable_diffusion.pipeline import DenoiseTask
from invokeclone.graph.vocabulary.fields import ConditioningField, TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.nodes.latents.noise import NoiseInvocation
from tests.fakes_context import FakeConfig, FakeContext
from tests.tiny_checkpoints import clip_weights, open_clip_weights, same_weights, unet_weights, vae_weights
from tests.tiny_models import SCHEDULER, TinyModels, make_unet, noise_of

CPU = torch.device("cpu")
EULER = {**SCHEDULER, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
WIDTH = 16
"""Of the second text encoder."""
BASES = {False: BaseModelType.StableDiffusionXL, True: BaseModelType.StableDiffusionXLRefiner}


def time_embedding(numbers: int) -> dict[str, Any]:
    size = WIDTH + numbers * 4
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": size,
    }


@pytest.fixture(scope="module")
def parts(sd1_parts: dict[str, Any]) -> dict[str, Any]:
    """Return the networks and tokenizers of a tiny SDXL."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(1)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 20, "num_attention_heads": 2, "projection_dim": WIDTH}
    words = {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 0}
    second = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, **words, num_hidden_layers=3, hidden_act="gelu"))
    return {
        **sd1_parts,
        "text_encoder_2": second.eval(),
        "tokenizer_2": sd1_parts["tokenizer"],
        "unet": make_unet(cross_attention_dim=32 + WIDTH, **time_embedding(6)),
    }


@pytest.fixture(scope="module")
def refiner_parts(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the networks and the tokenizer of a tiny refiner."""
    shared_parts = {name: parts[name] for name in ("vae", "text_encoder_2", "tokenizer_2")}
    return shared_parts | {"unet": make_unet(cross_attention_dim=WIDTH, **time_embedding(5))}


def context_of(parts: dict[str, Any], folder: Path, cache: ModelCache, base: BaseModelType) -> FakeContext:
    """Return a context whose only model, called "tiny", has these parts."""
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(EULER))
    record = SimpleNamespace(
        key="tiny", name="tiny", path=str(folder), base=base, type=ModelType.Main, format=ModelFormat.Diffusers
    )
    return FakeContext(models=TinyModels(cache, record, folder), config=FakeConfig(cache.settings))


@pytest.fixture
def context(parts: dict[str, Any], tmp_path: Path, model_cache: ModelCache) -> FakeContext:
    return context_of(parts, tmp_path / "sdxl", model_cache, BaseModelType.StableDiffusionXL)


@pytest.fixture
def refiner_context(refiner_parts: dict[str, Any], tmp_path: Path, model_cache: ModelCache) -> FakeContext:
    return context_of(refiner_parts, tmp_path / "refiner", model_cache, BaseModelType.StableDiffusionXLRefiner)


def identifier(base: BaseModelType) -> ModelIdentifierField:
    return ModelIdentifierField(key="tiny", hash="blake3:0", name="tiny", base=base, type=ModelType.Main)


def load_model(context: FakeContext) -> Any:
    return SDXLModelLoaderInvocation(model=identifier(BaseModelType.StableDiffusionXL)).invoke(context)


def encode(context: FakeContext, prompt: str, style: str = "", skip: int = 0, **sizes: Any) -> SDXLConditioningInfo:
    model = load_model(context)
    clip, clip2 = (
        CLIPSkipInvocation(clip=clip, skipped_layers=skip).invoke(context).clip for clip in (model.clip, model.clip2)
    )
    node = SDXLCompelPromptInvocation(prompt=prompt, style=style, clip=clip, clip2=clip2, **sizes)
    return info_of(context, node)


def info_of(context: FakeContext, node: Any) -> SDXLConditioningInfo:
    name = node.invoke(context).conditioning.conditioning_name
    return context.conditioning.load(name).conditionings[0]


def reference(parts: dict[str, Any]) -> Any:
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

    sdxl_pipeline = StableDiffusionXLPipeline(**parts, scheduler=discrete.create("euler", EULER), add_watermarker=False)
    sdxl_pipeline.set_progress_bar_config(disable=True)
    return sdxl_pipeline


@pytest.mark.parametrize("skip", [0, 1])
def test_prompt_encoding_matches_diffusers(skip: int, context: FakeContext, parts: dict[str, Any]):
    conditioning = encode(context, "a cat", "oil painting", skip)
    with torch.inference_mode():
        embeds, _, pooled, _ = reference(parts).encode_prompt(
            "a cat", "oil painting", do_classifier_free_guidance=False, clip_skip=skip or None
        )
    assert torch.allclose(conditioning.embeds, embeds, atol=1e-5)
    with torch.inference_mode(), skip_layers(parts["text_encoder_2"], skip):  # there the pooled one skips as well
        pooled = reference(parts).encode_prompt("a cat", "oil painting", do_classifier_free_guidance=False)[2]
    assert torch.allclose(conditioning.pooled_embeds, pooled, atol=1e-5)


def test_the_second_encoder_falls_back_to_the_prompt_without_style(context: FakeContext):
    same, blank, styled = (encode(context, "a cat", style) for style in ("a cat", "  ", "oil"))
    assert torch.equal(same.embeds, blank.embeds)
    assert torch.equal(same.pooled_embeds, blank.pooled_embeds)
    assert torch.equal(styled.embeds[..., :32], same.embeds[..., :32]), "the first encoder reads the prompt"
    assert not torch.allclose(styled.embeds[..., 32:], same.embeds[..., 32:], atol=1e-3)


def test_empty_text_gives_zeros_and_blank_text_does_not(context: FakeContext):
    nothing, styled, blank = encode(context, ""), encode(context, "", "oil"), encode(context, "  ")
    assert nothing.embeds.shape == (1, 77, 32 + WIDTH)
    assert not nothing.embeds.any()
    assert not nothing.pooled_embeds.any()
    assert not styled.embeds[..., :32].any()
    assert styled.embeds[..., 32:].any()
    assert styled.pooled_embeds.any()
    assert blank.embeds.any()


def test_the_pooled_embedding_uses_the_raw_text(context: FakeContext):
    """Weights change the tokens' embeddings; the pooled one is of the raw text, cut to one chunk."""
    weighted = encode(context, "a (cat)1.5")
    other = encode(context, "a cat")
    assert not torch.allclose(weighted.pooled_embeds, other.pooled_embeds, atol=1e-4)
    long = encode(context, "one two three " * 40)
    assert long.embeds.shape[1] > 77
    assert torch.allclose(long.pooled_embeds, encode(context, "one two three " * 41).pooled_embeds)


def test_the_shorter_text_is_zero_padded(context: FakeContext):
    conditioning = encode(context, "a cat", "one two three " * 40)
    assert conditioning.embeds.shape[1] > 77
    assert not conditioning.embeds[:, 77:, :32].any()
    assert conditioning.embeds[:, 77:, 32:].any()


def test_sizes(context: FakeContext):
    sizes = {"original_width": 1, "original_height": 2, "crop_top": 3, "crop_left": 4}
    conditioning = encode(context, "a cat", **sizes, target_width=5, target_height=6)
    assert conditioning.add_time_ids.tolist() == [[2, 1, 3, 4, 6, 5]]


def test_latents_match_diffusers(context: FakeContext, parts: dict[str, Any]):
    sizes = dict.fromkeys(("original_width", "original_height", "target_width", "target_height"), 64)
    positive, negative = encode(context, "a cat", "oil", **sizes), encode(context, "", **sizes)
    result = pipeline.denoise(parts["unet"], task(positive, negative), CPU, [].append)
    latents = initial_latents()
    expected = reference(parts)(
        "a cat",
        "oil",
        guidance_scale=5.0,
        latents=latents,
        width=64,
        height=64,
        num_inference_steps=4,
        output_type="latent",
    ).images
    assert torch.allclose(result, expected, atol=1e-4)


def task(positive: SDXLConditioningInfo, negative: SDXLConditioningInfo, **changes: Any) -> DenoiseTask:
    conditionings = (TextConditioning.of_prompts([(info, None)]) for info in (positive, negative))
    defaults = {"cfg_scale": 5.0, "noise": noise_of(1)}
    return DenoiseTask(*conditionings, "euler", EULER, 4, **{**defaults, **changes})


def initial_latents() -> torch.Tensor:
    """Return what diffusers' pipeline, which multiplies by init_noise_sigma, is to be given."""
    sampler = discrete.create("euler", EULER)
    sampler.set_timesteps(4)
    noise = noise_of(1)
    return sampler.add_noise(torch.zeros_like(noise), noise, sampler.timesteps[:1]) / sampler.init_noise_sigma


def test_refiner_handover_matches_diffusers(refiner_context: FakeContext, refiner_parts: dict[str, Any]):
    from diffusers import StableDiffusionXLImg2ImgPipeline

    base = BaseModelType.StableDiffusionXLRefiner
    model = SDXLRefinerModelLoaderInvocation(model=identifier(base)).invoke(refiner_context)
    sizes = {"original_width": 64, "original_height": 64}
    positive, negative = (
        info_of(
            refiner_context,
            SDXLRefinerCompelPromptInvocation(style=text, aesthetic_score=score, clip2=model.clip2, **sizes),
        )
        for text, score in (("a cat", 6.0), ("blurry", 2.5))
    )
    assert positive.add_time_ids.tolist() == [[64, 64, 0, 0, 6.0]]
    latents = noise_of(5) * 3
    result = pipeline.denoise(
        refiner_parts["unet"], task(positive, negative, noise=None, latents=latents, start=0.5), CPU, [].append
    )
    diffusers = StableDiffusionXLImg2ImgPipeline(
        **refiner_parts,
        text_encoder=None,
        tokenizer=None,
        scheduler=discrete.create("euler", EULER),
        requires_aesthetics_score=True,
        add_watermarker=False,
    )
    diffusers.set_progress_bar_config(disable=True)
    expected = diffusers(
        "a cat",
        negative_prompt="blurry",
        image=latents,
        denoising_start=0.5,
        num_inference_steps=4,
        guidance_scale=5.0,
        original_size=(64, 64),
        target_size=(64, 64),
        output_type="latent",
    ).images
    assert torch.allclose(result, expected, atol=1e-4)


def test_the_refiner_encodes_empty_text(refiner_context: FakeContext):
    base = BaseModelType.StableDiffusionXLRefiner
    model = SDXLRefinerModelLoaderInvocation(model=identifier(base)).invoke(refiner_context)
    assert info_of(refiner_context, SDXLRefinerCompelPromptInvocation(style="", clip2=model.clip2)).embeds.any()


def test_regions_share_the_pooled_embedding_of_the_last_whole_prompt(context: FakeContext):
    first, second, third = (encode(context, text) for text in ("a cat", "a dog", "a sun"))
    mask = torch.ones(8, 8)
    either = TextConditioning.of_prompts([(first, None), (second, None), (third, mask)])
    assert torch.equal(either.pooled, second.pooled_embeds)
    masked = TextConditioning.of_prompts([(first, mask), (second, mask)])
    assert torch.equal(masked.pooled, first.pooled_embeds)


def test_rows_keep_their_pooled_embeddings(context: FakeContext, parts: dict[str, Any]):
    """Two prompts in one call equal each alone."""
    infos = [encode(context, text) for text in ("a cat", "a dog")]
    rows = [TextConditioning.of_prompts([(info, None)]) for info in infos]
    noises = torch.cat([noise_of(1), noise_of(2)])
    together = DenoiseTask(rows[0].concat(rows[1]), rows[0], "euler", EULER, 4, noise=noises, seeds=(1, 2))
    batched = pipeline.denoise(parts["unet"], together, CPU, [].append)
    for row, seed in ((0, 1), (1, 2)):
        alone = pipeline.denoise(
            parts["unet"], DenoiseTask(rows[row], rows[0], "euler", EULER, 4, noise=noise_of(seed)), CPU, [].append
        )
        assert torch.allclose(batched[row : row + 1], alone, atol=1e-4)


def test_a_missing_pooled_embedding_is_refused():
    with pytest.raises(ValueError, match="pooled embedding is missing"):
        prompts.conditioning([prompts.EncodedText(torch.zeros(1, 77, 4), None)], [1, 2, 3])


OTHERS = {
    "width": (SDXLConditioningInfo(torch.zeros(1, 77, 32), torch.zeros(1, WIDTH), torch.zeros(1, 6)), "of width 32"),
    "no sizes": (BasicConditioningInfo(torch.zeros(1, 77, 48)), "has no sizes and pooled embedding"),
    "refiner": (SDXLConditioningInfo(torch.zeros(1, 77, 48), torch.zeros(1, WIDTH), torch.zeros(1, 5)), "5 sizes"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("tiled", [False, True])
def test_prompts_of_another_model_are_refused(kind: str, tiled: bool, context: FakeContext, parts: dict[str, Any]):
    other, problem = OTHERS[kind]
    mismatched_task = task(encode(context, "a cat"), other)
    with pytest.raises(
        ValueError, match=f"the negative prompt .*{problem}.*: encode the prompts with the text encoders"
    ):
        if tiled:
            multi_diffusion.denoise(
                parts["unet"], mismatched_task, multi_diffusion.Tiling(4, 4, 1), CPU, lambda _: None
            )
        else:
            pipeline.denoise(parts["unet"], mismatched_task, CPU, lambda _: None)


def test_prompts_of_two_models_are_not_combined():
    sides = [(BasicConditioningInfo(torch.zeros(1, 77, width)), None) for width in (48, 32)]
    with pytest.raises(ValueError, match=r"cannot join prompts of different models .*widths 32 and 48"):
        TextConditioning.of_prompts(sides)


def test_text_encoders_in_the_wrong_place(context: FakeContext, parts: dict[str, Any]):
    model = load_model(context)
    swapped = SDXLCompelPromptInvocation(prompt="a cat", clip=model.clip2, clip2=model.clip)
    with pytest.raises(ValueError, match="no pooled embedding: connect the second text encoder"):
        swapped.invoke(context)
    with pytest.raises(ValueError, match="SDXL's second text encoder: encode the prompt with SDXL's prompt node"):
        pipeline.encode(parts["tokenizer_2"], parts["text_encoder_2"], "a cat", CPU)


def test_loader_errors_name_the_missing_part(refiner_context: FakeContext):
    with pytest.raises(ValueError, match="has no part text_encoder: select a model of the kind"):
        encode(refiner_context, "a cat")


def test_the_nodes_denoise(context: FakeContext):
    model = load_model(context)
    sides = [
        SDXLCompelPromptInvocation(prompt=text, clip=model.clip, clip2=model.clip2).invoke(context).conditioning
        for text in ("a cat", "")
    ]
    noise = NoiseInvocation(seed=3, width=64, height=48).invoke(context).noise
    node = DenoiseLatentsInvocation(
        positive_conditioning=sides[0], negative_conditioning=sides[1], noise=noise, unet=model.unet, steps=2
    )
    assert node.invoke(context).latents.latents_name
    assert isinstance(sides[0], ConditioningField)
    masked = SDXLCompelPromptInvocation(
        prompt="a", clip=model.clip, clip2=model.clip2, mask=TensorField(tensor_name="m")
    )
    assert masked.invoke(context).conditioning.mask == TensorField(tensor_name="m")


@pytest.mark.parametrize("refiner", [False, True])
def test_every_part_of_a_single_file_is_loaded(
    *,
    refiner: bool,
    parts: dict[str, Any],
    refiner_parts: dict[str, Any],
    model_cache: ModelCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    networks = refiner_parts if refiner else parts
    prefix = single_files.REFINER_CLIP_G_PREFIX if refiner else single_files.CLIP_G_PREFIX
    weights = unet_weights(networks["unet"]) | vae_weights(networks["vae"])
    weights |= open_clip_weights(networks["text_encoder_2"], prefix)
    names = [SubModelType.UNet, SubModelType.VAE, SubModelType.TextEncoder2]
    if not refiner:
        weights |= clip_weights(networks["text_encoder"], single_files.CLIP_L_PREFIX)
        names.append(SubModelType.TextEncoder)
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, tmp_path / "xl.safetensors")
    for name in ("unet", "vae"):
        networks[name].save_config(tmp_path / name)
    for name in names[2:]:
        networks[name].config.save_pretrained(tmp_path / name)
    monkeypatch.setattr(single_files, "configs_of", lambda _: tmp_path)
    record = SimpleNamespace(
        key="xl", name="xl", base=BASES[refiner], type=ModelType.Main, format=ModelFormat.Checkpoint
    )
    for name in names:
        part = loaders.load(model_cache, record, tmp_path / "xl.safetensors", name).model
        assert same_weights(part, networks[name]), name
    tokenizer = loaders.load(model_cache, record, tmp_path / "xl.safetensors", SubModelType.Tokenizer2).model
    assert tokenizer.pad_token == "!"
    if refiner:
        with pytest.raises(ValueError, match="no part"):
            loaders.load(model_cache, record, tmp_path / "xl.safetensors", SubModelType.TextEncoder)
