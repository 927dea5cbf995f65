"""LoRAs, ControlNets and seed variance of Z-Image, against weights merged by hand and diffusers' networks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from invokeclone.components.denoisers.lora_fields import LoRANotApplicable
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.engine.lora.files import load_lora
from invokeclone.families.z_image import pipeline
from invokeclone.families.z_image.conditioning import ZImageConditioning
from invokeclone.families.z_image.controlnet import ZImageControlNet, load_controlnet_file
from invokeclone.families.z_image.lora_keys import LAYOUT
from invokeclone.families.z_image.nodes.controls import ZImageControlInvocation
from invokeclone.families.z_image.nodes.denoise import ZImageDenoiseInvocation
from invokeclone.families.z_image.nodes.loras import ZImageLoRACollectionLoader, ZImageLoRALoaderInvocation
from invokeclone.families.z_image.nodes.models import ZImageModelLoaderInvocation
from invokeclone.families.z_image.nodes.prompts import (
    ZImageSeedVarianceEnhancerInvocation,
    ZImageTextEncoderInvocation,
)
from invokeclone.families.z_image.pipeline import ZImageDenoiseTask
from invokeclone.families.z_image.seed_variance import vary
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from tests.fakes_context import FakeContext
from tests.tiny_transformers import context_with

CPU = torch.device("cpu")
WIDTH, HEIGHT, DIM = 96, 64, 32
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def context(model_cache: ModelCache) -> FakeContext:
    return context_with(model_cache)


@pytest.fixture
def model(context: FakeContext, z_image_folder: Path) -> Any:
    identifier = context.models.add_main(z_image_folder, BaseModelType.ZImage)
    return ZImageModelLoaderInvocation(model=identifier).invoke(context)


def add(context: FakeContext, path: Path, tensors: Tensors, kind: ModelType, form: ModelFormat) -> ModelIdentifierField:
    save_file(tensors, path)
    identifier: ModelIdentifierField = context.models.add(path, BaseModelType.ZImage, kind, form)
    return identifier


def pair(layer: str, outputs: int = DIM, inputs: int = DIM, form: str = "kohya") -> Tensors:
    """Return a LoRA of rank 2 for a layer."""
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, inputs, generator=generator), torch.randn(outputs, 2, generator=generator)
    names = ("lora_down", "lora_up") if form == "kohya" else ("lora_A", "lora_B")
    return {f"{layer}.{names[0]}.weight": down, f"{layer}.{names[1]}.weight": up}


def run(transformer: Any, **options: Any) -> torch.Tensor:
    text = torch.randn(1, 9, DIM, generator=torch.Generator().manual_seed(3))
    task = ZImageDenoiseTask(FlowInputs(WIDTH, HEIGHT, 1, seed=5), ZImageConditioning(text), **options)
    return pipeline.denoise(transformer, task, CPU, [].append)


@pytest.mark.parametrize(
    ("layer", "form", "modules"),
    [
        ("lora_unet__layers_0_attention_to_q", "kohya", ["layers_0_attention_to_q"]),
        ("diffusion_model.layers.0.attention.qkv", "peft", [f"layers_0_attention_to_{side}" for side in "qkv"]),
        ("diffusion_model.noise_refiner.0.attention.out", "peft", ["noise_refiner_0_attention_to_out_0"]),
        ("transformer.layers.1.attention.to_out.0", "peft", ["layers_1_attention_to_out_0"]),
        ("base_model.model.transformer.diffusion_model.layers.1.feed_forward.w1", "peft", ["layers_1_feed_forward_w1"]),
        ("diffusion_model.x_embedder", "peft", ["all_x_embedder_2-1"]),
        ("diffusion_model.cap_embedder.1", "peft", ["cap_embedder_1"]),
    ],
)
def test_names_of_layers(layer: str, form: str, modules: list[str], tmp_path: Path, z_image_parts: Any) -> None:
    save_file(pair(layer, form=form), tmp_path / "lora.safetensors")
    parts = load_lora(tmp_path / "lora.safetensors", LAYOUT, torch.float32).parts
    ((name, change),) = parts["transformer"].items()
    stack = getattr(change, "stack", None)
    assert ([name] if stack is None else list(stack.modules)) == modules
    flat = {path.replace(".", "_") for path, _ in z_image_parts["transformer"].named_modules()}
    assert set(modules) <= flat


@pytest.mark.parametrize("prefix", ["text_encoder.model.", "text_encoder.", "lora_te_"])
def test_layers_of_the_text_encoder(prefix: str, tmp_path: Path) -> None:
    layer = "layers.0.self_attn.q_proj"
    save_file(pair(prefix + (layer.replace(".", "_") if "_te_" in prefix else layer)), tmp_path / "lora.safetensors")
    parts = load_lora(tmp_path / "lora.safetensors", LAYOUT, torch.float32).parts
    assert list(parts["qwen3"]) == ["layers_0_self_attn_q_proj"]


def test_a_lora_acts_as_merged_weights(context: FakeContext, model: Any, z_image_parts: Any, tmp_path: Path) -> None:
    tensors = pair("diffusion_model.layers.0.attention.qkv", 3 * DIM, form="peft")
    tensors |= pair("text_encoder.layers.0.self_attn.q_proj", form="peft")
    lora = add(context, tmp_path / "lora.safetensors", tensors, ModelType.LoRA, ModelFormat.LyCORIS)
    single = ZImageLoRALoaderInvocation(
        lora=lora, weight=0.5, transformer=model.transformer, qwen3_encoder=model.qwen3_encoder
    ).invoke(context)
    several = ZImageLoRACollectionLoader(
        loras=[LoRAField(lora=lora, weight=0.5)], transformer=model.transformer, qwen3_encoder=model.qwen3_encoder
    ).invoke(context)
    assert single == several

    def latents(encoder: Any, transformer: Any) -> torch.Tensor:
        prompt = ZImageTextEncoderInvocation(prompt="a cat", qwen3_encoder=encoder).invoke(context).conditioning
        node = ZImageDenoiseInvocation(
            positive_conditioning=prompt, transformer=transformer, width=WIDTH, height=HEIGHT, steps=2, seed=7
        )
        return context.tensors.load(node.invoke(context).latents.latents_name).float()

    plain, changed = latents(model.qwen3_encoder, model.transformer), latents(single.qwen3_encoder, single.transformer)
    assert (changed - plain).abs().mean() > 0.05
    assert not torch.equal(changed, latents(model.qwen3_encoder, single.transformer)), "the encoder is changed too"
    with context.models.load(model.transformer.transformer) as transformer:
        deltas = (tensors["diffusion_model.layers.0.attention.qkv.lora_B.weight"] * 0.5) @ tensors[
            "diffusion_model.layers.0.attention.qkv.lora_A.weight"
        ]
        attention = transformer.layers[0].attention
        before = copy.deepcopy(attention.state_dict())
        for module, delta in zip((attention.to_q, attention.to_k, attention.to_v), deltas.chunk(3), strict=True):
            module.weight.data += delta.to(module.weight)
    merged = latents(single.qwen3_encoder, model.transformer)
    with context.models.load(model.transformer.transformer) as transformer:
        transformer.layers[0].attention.load_state_dict(before)
    assert (merged - changed).abs().mean() < 0.05 * changed.abs().mean(), "equal but for rounding in bfloat16"
    with pytest.raises(LoRANotApplicable, match="applied twice"):
        ZImageLoRALoaderInvocation(lora=lora, transformer=single.transformer).invoke(context)


@pytest.fixture(params=[16, 33])
def controlnet_tensors(request: pytest.FixtureRequest) -> Tensors:
    """Return the tensors of a ControlNet of version 1 or 2."""
    from diffusers.models.controlnets.controlnet_z_image import ZImageControlNetModel

    torch.manual_seed(8)
    net = ZImageControlNetModel(
        control_layers_places=[0, 2], control_in_dim=request.param, dim=DIM, n_refiner_layers=1, n_heads=2, n_kv_heads=2
    )
    tensors = {name: torch.randn_like(value) * 0.2 for name, value in net.state_dict().items()}
    return tensors | {"control_noise_refiner.0.after_proj.weight": torch.ones(DIM, DIM)}


def test_a_controlnet_adds_what_the_network_of_diffusers_does(
    controlnet_tensors: Tensors, z_image_parts: Any, tmp_path: Path
) -> None:
    save_file(controlnet_tensors, tmp_path / "control.safetensors")
    net, transformer = (
        load_controlnet_file(tmp_path / "control.safetensors", torch.float32),
        z_image_parts["transformer"],
    )
    assert net.config.control_layers_places == [0, 2]
    image = torch.randn(1, 16, HEIGHT // 8, WIDTH // 8)
    text = torch.randn(9, DIM, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(1, 16, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(5))
    planes = [image[0], torch.zeros(16, *image.shape[2:]), torch.ones(1, *image.shape[2:])]
    planes = planes if net.config.control_in_dim > 16 else planes[:1]
    result = run(transformer, controls=[ZImageControlNet(net, transformer, image, 0.6)])
    assert net.t_embedder is None, "the transformer's modules are not the ControlNet's"
    with torch.inference_mode():
        whole = type(net).from_transformer(copy.deepcopy(net), copy.deepcopy(transformer))
        inputs = ([noise[0].unsqueeze(1)], torch.zeros(1), [text])
        samples = whole(*inputs, [torch.cat(planes).unsqueeze(1)], conditioning_scale=0.6)
        output = transformer(*inputs, controlnet_block_samples=samples, return_dict=False)[0][0]
    torch.testing.assert_close(result[0], noise[0] + output[:, 0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(result, run(transformer), atol=1e-3)


def test_a_controlnet_acts_in_its_part_of_the_run_only(z_image_parts: Any, tmp_path: Path) -> None:
    class Recorder(ZImageControlNet):
        def _context(self) -> torch.Tensor:
            raise AssertionError("inactive")

    transformer = z_image_parts["transformer"]
    image = torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8)
    plain = run(transformer)
    for options in ({"weight": 0.0}, {"begin": 0.5, "end": 1.0}):
        assert torch.equal(plain, run(transformer, controls=[Recorder(None, transformer, image, **options)]))
    with pytest.raises(AssertionError, match="inactive"):
        run(transformer, controls=[Recorder(None, transformer, image, begin=0.0, end=0.0)])


def test_the_control_node_and_what_it_needs(
    context: FakeContext, model: Any, controlnet_tensors: Tensors, tmp_path: Path
) -> None:
    path = tmp_path / "control.safetensors"
    network = add(context, path, controlnet_tensors, ModelType.ControlNet, ModelFormat.Checkpoint)
    image = context.images.put(Image.linear_gradient("L").resize((50, 70)).convert("RGB"))
    control = ZImageControlInvocation(image=image, control_model=network).invoke(context).control
    prompt = ZImageTextEncoderInvocation(prompt="a cat", qwen3_encoder=model.qwen3_encoder).invoke(context)

    def denoise(**inputs: Any) -> torch.Tensor:
        node = ZImageDenoiseInvocation(
            positive_conditioning=prompt.conditioning,
            transformer=model.transformer,
            width=WIDTH,
            height=HEIGHT,
            steps=2,
            **inputs,
        )
        return context.tensors.load(node.invoke(context).latents.latents_name)

    assert not torch.equal(denoise(), denoise(control=control, vae=model.vae))
    with pytest.raises(ValueError, match="a ControlNet needs the VAE that encodes its image"):
        denoise(control=control)


def test_an_incomplete_controlnet_is_rejected(controlnet_tensors: Tensors, tmp_path: Path) -> None:
    del controlnet_tensors["control_layers.0.before_proj.weight"]
    save_file(controlnet_tensors, tmp_path / "control.safetensors")
    with pytest.raises(ValueError, match="holds an incomplete ControlNet, download it again"):
        load_controlnet_file(tmp_path / "control.safetensors", torch.float32)


def test_seed_variance_changes_a_share_of_the_values() -> None:
    embeds = torch.randn(1, 40, 50, generator=torch.Generator().manual_seed(0)) * 3
    varied = vary(embeds, 3, 0.5, 0.25)
    changed = varied != embeds
    assert 0.2 < changed.float().mean() < 0.3
    assert (varied - embeds).abs().max() <= 0.5 * float(embeds.std())
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(embeds.shape, generator=generator) * 2 - 1
    torch.testing.assert_close(varied[changed], (embeds + noise * 0.5 * embeds.std())[changed])
    chosen = torch.bernoulli(torch.full_like(embeds, 0.25), generator=torch.Generator().manual_seed(4))
    assert torch.equal(changed, chosen.bool())
    assert torch.equal(varied, vary(embeds, 3, 0.5, 0.25))
    assert torch.equal(embeds, vary(embeds, 3, 0.0, 0.25))


def test_the_seed_variance_node_keeps_the_region_and_the_original(context: FakeContext, model: Any) -> None:
    prompt = ZImageTextEncoderInvocation(prompt="a cat", qwen3_encoder=model.qwen3_encoder).invoke(context).conditioning
    prompt.mask = {"tensor_name": "region"}
    varied = ZImageSeedVarianceEnhancerInvocation(conditioning=prompt, seed=2**64, strength=1.0).invoke(context)
    assert varied.conditioning.mask == prompt.mask
    first, second = (
        context.conditioning.load(name).conditionings[0].prompt_embeds
        for name in (prompt.conditioning_name, varied.conditioning.conditioning_name)
    )
    assert second.dtype == first.dtype == torch.bfloat16
    assert not torch.equal(first, second)
