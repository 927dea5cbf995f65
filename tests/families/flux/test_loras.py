"""LoRA nodes of FLUX.1, runs with LoRAs and control LoRAs, against weights merged by hand and diffusers' pipeline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlPipeline
from PIL import Image
from safetensors.torch import save_file

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.denoisers.lora_fields import LoRANotApplicable
from invokeclone.components.flux.conditioning import FLUXConditioningInfo
from invokeclone.components.flux.fields import FluxConditioningField
from invokeclone.components.flux.tokens import pack, unpack
from invokeclone.components.text_encoders.fields import T5EncoderField
from invokeclone.engine.conditioning import ConditioningFieldData
from invokeclone.engine.lora.files import load_lora
from invokeclone.families.flux import single_files
from invokeclone.families.flux.control_lora import apply_control_lora
from invokeclone.families.flux.lora_keys import LAYOUT
from invokeclone.families.flux.nodes.denoise import FluxDenoiseInvocation, FluxDenoiseLatentsMetaInvocation
from invokeclone.families.flux.nodes.loras import (
    FluxControlLoRALoaderInvocation,
    FLUXLoRACollectionLoader,
    FluxLoRALoaderInvocation,
)
from invokeclone.families.flux.nodes.models import FluxModelLoaderInvocation
from invokeclone.families.flux.nodes.prompts import FluxTextEncoderInvocation
from invokeclone.families.flux.reference_images import control_tokens, kontext_references
from invokeclone.graph.invocations.metadata import WrongModelType
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, FluxVariantType, ModelFormat, ModelType
from tests.fakes_context import FakeConfig, FakeContext
from tests.families.flux.test_pipeline import (
    CPU,
    HEIGHT,
    WIDTH,
    assert_close,
    image_of,
    levels_of,
    noise_of,
    run,
    task_of,
)
from tests.tiny_flux import make_transformer, original_names
from tests.tiny_transformers import InstalledModels

Tensors = dict[str, torch.Tensor]
Text = Callable[[int], tuple[torch.Tensor, torch.Tensor]]
LAYER = "double_blocks.0.img_attn.qkv"


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.fixture(scope="module")
def original(flux_transformer: Any) -> Tensors:
    return original_names(flux_transformer.state_dict())


@pytest.fixture(scope="module")
def control_lora(original: Tensors) -> Tensors:
    return make_control_lora(original)


def make_control_lora(original: Tensors) -> Tensors:
    """Return the tensors of a control LoRA, as Black Forest Labs' files have them."""
    tensors: Tensors = {}
    for number, (name, tensor) in enumerate(original.items()):
        layer, _, kind = name.rpartition(".")
        if kind == "scale":
            tensors[name] = random_tensor(*tensor.shape, seed=number).abs() + 0.5
        elif kind == "weight":
            rows, columns = tensor.shape[0], 128 if layer == "img_in" else tensor.shape[1]
            tensors[f"{layer}.lora_A.weight"] = 0.3 * random_tensor(2, columns, seed=number)
            tensors[f"{layer}.lora_B.weight"] = 0.3 * random_tensor(rows, 2, seed=-number)
            tensors[f"{layer}.lora_B.bias"] = 0.1 * random_tensor(rows, seed=number)
    return tensors


def merge_control_lora(original: Tensors, lora: Tensors, weight: float) -> Any:
    """Return a transformer of 128 input channels with the changes added by hand."""
    changed = dict(original)
    changed["img_in.weight"] = torch.cat(
        [original["img_in.weight"], torch.zeros_like(original["img_in.weight"])], dim=1
    )
    for name, tensor in lora.items():
        if name.endswith(".scale"):
            changed[name] = tensor
        elif name.endswith("lora_B.weight"):
            layer = name.removesuffix(".lora_B.weight")
            changed[f"{layer}.weight"] = changed[f"{layer}.weight"] + weight * tensor @ lora[f"{layer}.lora_A.weight"]
        elif name.endswith(".bias"):
            layer = name.removesuffix(".lora_B.bias")
            changed[f"{layer}.bias"] = changed[f"{layer}.bias"] + weight * tensor
    model = make_transformer(in_channels=128, out_channels=64)
    model.load_state_dict(single_files.NAMES.to_diffusers(changed))
    return model


@pytest.fixture
def control_parts(control_lora: Tensors, tmp_path: Path) -> Any:
    save_file(control_lora, tmp_path / "control.safetensors")
    return load_lora(tmp_path / "control.safetensors", LAYOUT, torch.float32).parts


@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_control_lora_matches_diffusers_with_merged_weights(
    flux_transformer: Any, flux_vae: Any, flux_text: Text, original: Tensors, control_lora: Tensors, control_parts: Any,
    weight: float,
):  # fmt: skip
    image, text = image_of(3), flux_text(1)
    made = FluxControlPipeline(
        FlowMatchEulerDiscreteScheduler(shift=1.0), flux_vae, None, None, None, None,
        merge_control_lora(original, control_lora, weight),
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    packed = made(
        prompt_embeds=text[0], pooled_prompt_embeds=text[1], latents=pack(noise_of(1)), sigmas=levels_of()[:-1],
        num_inference_steps=4, guidance_scale=3.5, control_image=image, width=WIDTH, height=HEIGHT,
        generator=torch.Generator().manual_seed(0), output_type="latent", return_dict=False,
    )[0]  # fmt: skip
    expected = unpack(packed, HEIGHT // 8, WIDTH // 8)
    before = {name: (tensor, tensor.data_ptr()) for name, tensor in flux_transformer.named_parameters()}
    plain = run(flux_transformer, task_of(flux_text))
    task = task_of(flux_text, control_image=control_tokens(flux_vae, image, CPU))
    with apply_control_lora(flux_transformer, "depth", control_parts, weight, CPU):
        assert_close(run(flux_transformer, task), expected)
    assert all(
        before[name][0] is tensor and before[name][1] == tensor.data_ptr()
        for name, tensor in flux_transformer.named_parameters()
    )
    assert torch.equal(run(flux_transformer, task_of(flux_text)), plain), "the control LoRA is off again"
    assert not torch.allclose(plain, expected, atol=1e-2)


@pytest.mark.parametrize("kind", ["of a narrower layer", "without a layer for the image"])
def test_other_loras_are_no_control_loras(flux_transformer: Any, control_parts: Any, kind: str):
    layers = dict(control_parts["transformer"])
    if kind == "of a narrower layer":
        layers["x_embedder"] = layers["transformer_blocks_0_attn_to_out_0"]
    else:
        del layers["x_embedder"]
    message = "does not fit this model" if kind == "of a narrower layer" else r"has no layer for the control image"
    with (
        pytest.raises(ValueError, match=message),
        apply_control_lora(flux_transformer, "depth", {"transformer": layers}, 1.0, CPU),
    ):
        pytest.fail("it is applied")


def test_control_loras_exclude_fill_and_references(flux_transformer: Any, flux_vae: Any, flux_text: Text):
    tokens = control_tokens(flux_vae, image_of(3), CPU)
    added = task_of(flux_text, control_image=tokens, added=torch.zeros(1, tokens.shape[1], 320))
    with pytest.raises(ValueError, match=r"cannot be combined with FLUX\.1 Fill"):
        run(flux_transformer, added)
    referenced = task_of(flux_text, control_image=tokens, references=kontext_references(flux_vae, [image_of(4)], CPU))
    with pytest.raises(ValueError, match="remove kontext_conditioning"):
        run(flux_transformer, referenced)


@dataclass
class Models(InstalledModels):
    """Models in files, and some that are objects, by key."""

    objects: dict[str, Any] = field(default_factory=dict)

    def load(self, identifier: ModelIdentifierField, submodel_type: Any = None) -> Any:
        if identifier.key in self.objects:
            return Loaded(self.objects[identifier.key])
        return super().load(identifier, submodel_type)

    def add_object(self, name: str, kind: ModelType, model: Any, base: Any = BaseModelType.Flux, **facts: Any) -> Any:
        """Add a model; returns its identifier."""
        self.objects[name] = model
        return self.add(Path(name), base, kind, ModelFormat.Checkpoint, **facts)


class Loaded:
    """A loaded model object."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __enter__(self) -> Any:
        return self.model

    def __exit__(self, *details: object) -> None:
        pass


@pytest.fixture
def context(model_cache: Any) -> FakeContext:
    return FakeContext(models=Models(model_cache, {}), config=FakeConfig(model_cache.settings))


@pytest.fixture
def install(context: FakeContext, tmp_path: Path) -> Callable[..., ModelIdentifierField]:
    """Install a LoRA with these tensors."""

    def install_lora(
        name: str, tensors: Tensors, kind: ModelType = ModelType.LoRA, base: BaseModelType = BaseModelType.Flux
    ) -> Any:
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        return context.models.add(path, base, kind, ModelFormat.LyCORIS)

    return install_lora


@pytest.fixture
def style(install: Any, original: Tensors) -> ModelIdentifierField:
    rows, columns = original[f"{LAYER}.weight"].shape
    layer = f"diffusion_model.{LAYER}"
    up, down = random_tensor(rows, 2), 0.3 * random_tensor(2, columns)
    return install("style", {f"{layer}.lora_B.weight": up, f"{layer}.lora_A.weight": down})


@pytest.fixture
def parts(context: FakeContext, flux_transformer: Any) -> dict[str, Any]:
    """Return the fields of a model whose text encoders belong to no base."""
    main = context.models.add_object("dev", ModelType.Main, flux_transformer, variant=FluxVariantType.Dev)
    clip = context.models.add_object("clip", ModelType.CLIPEmbed, None, BaseModelType.Any)
    t5 = context.models.add_object("t5", ModelType.T5Encoder, None, BaseModelType.Any)
    return {
        "transformer": TransformerField(transformer=main, loras=[]),
        "clip": CLIPField(tokenizer=clip, text_encoder=clip, skipped_layers=0, loras=[]),
        "t5_encoder": T5EncoderField(tokenizer=t5, text_encoder=t5, loras=[]),
    }


@pytest.fixture
def denoise(context: FakeContext, parts: dict[str, Any], flux_text: Text) -> Callable[..., Any]:
    """Make a denoise node."""
    text, pooled = flux_text(1)
    info = FLUXConditioningInfo(clip_embeds=pooled, t5_embeds=text)
    name = context.conditioning.save(ConditioningFieldData(conditionings=[info]))

    def make(cls: Any = FluxDenoiseInvocation, **changes: Any) -> Any:
        inputs = {"transformer": parts["transformer"], "width": WIDTH, "height": HEIGHT, "num_steps": 2, "seed": 5}
        return cls(positive_text_conditioning=FluxConditioningField(conditioning_name=name), **{**inputs, **changes})

    return make


def latents_of(context: FakeContext, node: Any) -> torch.Tensor:
    return context.tensors.load(node.invoke(context).latents.latents_name)


class TestLoaders:
    def test_the_lora_is_added_to_all_parts(
        self, context: FakeContext, parts: dict[str, Any], style: ModelIdentifierField
    ):
        output = FluxLoRALoaderInvocation(lora=style, weight=-0.3, **parts).invoke(context)
        for name, part in parts.items():
            assert getattr(output, name) == part.model_copy(update={"loras": [LoRAField(lora=style, weight=-0.3)]})
            assert part.loras == []

    def test_parts_may_be_omitted(self, context: FakeContext, parts: dict[str, Any], style: ModelIdentifierField):
        output = FluxLoRALoaderInvocation(lora=style, transformer=parts["transformer"]).invoke(context)
        assert output.transformer is not None
        assert [field.weight for field in output.transformer.loras] == [0.75]
        assert (output.clip, output.t5_encoder) == (None, None)

    def test_a_collection(self, context: FakeContext, parts: dict[str, Any], style: Any, install: Any):
        other = install("other", {"lora_unet_img_in.diff": torch.ones(32, 64)})
        fields = [LoRAField(lora=style, weight=0.2), LoRAField(lora=other, weight=0.4)]
        output = FLUXLoRACollectionLoader(loras=fields, **parts).invoke(context)
        for name in parts:
            assert getattr(output, name).loras == fields
        assert FLUXLoRACollectionLoader(loras=None, **parts).invoke(context).clip == parts["clip"]

    def test_loras_of_another_base_or_applied_twice_are_refused(
        self, context: FakeContext, parts: dict[str, Any], install: Any, style: ModelIdentifierField
    ):
        other = install("klein", {"x.diff": torch.ones(1, 1)}, base=BaseModelType.Flux2)
        with pytest.raises(LoRANotApplicable, match=r"klein\S* is for flux2 models, but dev is a flux model"):
            FluxLoRALoaderInvocation(lora=other, **parts).invoke(context)
        twice = [LoRAField(lora=style, weight=1)] * 2
        with pytest.raises(LoRANotApplicable, match=r"style\S* is applied twice"):
            FLUXLoRACollectionLoader(loras=twice, **parts).invoke(context)

    def test_control_lora(self, context: FakeContext, install: Any, style: ModelIdentifierField):
        image = context.images.put(Image.new("RGB", (8, 8)))
        depth = install("depth", {"x.diff": torch.ones(1, 1)}, ModelType.ControlLoRa)
        field = FluxControlLoRALoaderInvocation(lora=depth, image=image, weight=0.4).invoke(context).control_lora
        assert (field.lora, field.img, field.weight) == (depth, image, 0.4)
        with pytest.raises(WrongModelType, match=r"style\S* is a model of type lora: select one of type control_lora"):
            FluxControlLoRALoaderInvocation(lora=style, image=image).invoke(context)


class TestRuns:
    def test_denoising_with_a_lora(
        self, context: FakeContext, denoise: Any, parts: dict[str, Any], style: Any, original: Tensors, tmp_path: Path
    ):
        plain = latents_of(context, denoise())
        field = FluxLoRALoaderInvocation(lora=style, weight=0.5, transformer=parts["transformer"]).invoke(context)
        latents = latents_of(context, denoise(transformer=field.transformer))
        assert torch.equal(latents_of(context, denoise()), plain), "the LoRA is off again"
        rows, columns = original[f"{LAYER}.weight"].shape
        delta = 0.5 * random_tensor(rows, 2) @ (0.3 * random_tensor(2, columns))
        changed = {**original, f"{LAYER}.weight": original[f"{LAYER}.weight"] + delta}
        merged = make_transformer()
        merged.load_state_dict(single_files.NAMES.to_diffusers(changed))
        context.models.objects["dev"] = merged
        assert torch.allclose(latents, latents_of(context, denoise()), atol=2e-4)
        assert not torch.allclose(latents, plain, atol=1e-2)

    def test_metadata_names_the_loras(self, context: FakeContext, denoise: Any, parts: dict[str, Any], style: Any):
        field = FluxLoRALoaderInvocation(lora=style, weight=0.5, transformer=parts["transformer"]).invoke(context)
        output = denoise(FluxDenoiseLatentsMetaInvocation, transformer=field.transformer).invoke(context)
        assert output.metadata.root["loras"] == [{"model": style.model_dump(mode="json"), "weight": 0.5}]
        output = denoise(FluxDenoiseLatentsMetaInvocation).invoke(context)
        assert "loras" not in output.metadata.root

    def test_denoising_with_a_lora_and_a_control_lora(
        self, context: FakeContext, denoise: Any, parts: dict[str, Any], style: Any, install: Any,
        control_lora: Tensors, original: Tensors, flux_vae: Any,
    ):  # fmt: skip
        vae = VAEField(vae=context.models.add_object("vae", ModelType.VAE, flux_vae))
        depth = install("depth", control_lora, ModelType.ControlLoRa)
        image = context.images.put(Image.effect_noise((WIDTH, HEIGHT), 80).convert("RGB"))
        control = FluxControlLoRALoaderInvocation(lora=depth, image=image, weight=0.6).invoke(context).control_lora
        field = FluxLoRALoaderInvocation(lora=style, weight=0.5, transformer=parts["transformer"]).invoke(context)
        node = denoise(transformer=field.transformer, control_lora=control, controlnet_vae=vae)
        latents = latents_of(context, node)
        rows, columns = original[f"{LAYER}.weight"].shape
        delta = 0.5 * random_tensor(rows, 2) @ (0.3 * random_tensor(2, columns))
        with_style = {**original, f"{LAYER}.weight": original[f"{LAYER}.weight"] + delta}
        merged = merge_control_lora(with_style, control_lora, 0.6)
        pixels = torch.from_numpy(np.asarray(context.images.get_pil(image.image_name), dtype=np.float32))
        tokens = control_tokens(flux_vae, pixels.permute(2, 0, 1)[None] / 127.5 - 1, CPU)
        context.models.objects["dev"] = merged
        expected = run_with(merged, denoise()._task(context), tokens)
        assert torch.allclose(latents, expected, atol=2e-4)

    def test_prompts_with_a_lora(self, context: FakeContext, flux_folder: Path, install: Any):
        main = context.models.add_main(flux_folder, BaseModelType.Flux)
        model = FluxModelLoaderInvocation(model=main).invoke(context)
        clip_layer, t5_layer = (
            "lora_te1_text_model_encoder_layers_0_mlp_fc1",
            "lora_te2_encoder_block_0_layer_0_SelfAttention_v",
        )
        tensors = {f"{clip_layer}.diff": random_tensor(37, 32), f"{t5_layer}.diff": random_tensor(16, 24)}
        lora = install("words", tensors)
        patched = FluxLoRALoaderInvocation(lora=lora, clip=model.clip, t5_encoder=model.t5_encoder).invoke(context)

        def encode(clip: Any, t5: Any) -> FLUXConditioningInfo:
            node = FluxTextEncoderInvocation(clip=clip, t5_encoder=t5, t5_max_seq_len=256, prompt="a cat")
            conditioning = node.invoke(context).conditioning
            return context.conditioning.load(conditioning.conditioning_name).conditionings[0]

        plain = encode(model.clip, model.t5_encoder)
        both = encode(patched.clip, patched.t5_encoder)
        assert not torch.allclose(both.clip_embeds, plain.clip_embeds, atol=1e-2)
        assert not torch.allclose(both.t5_embeds, plain.t5_embeds, atol=1e-2)
        only_clip = encode(patched.clip, model.t5_encoder)
        assert torch.equal(only_clip.clip_embeds, both.clip_embeds)
        assert torch.equal(only_clip.t5_embeds, plain.t5_embeds)

    def test_a_control_lora_without_weight_changes_nothing(self, context: FakeContext, denoise: Any, install: Any):
        depth = install("depth", {"x.diff": torch.ones(1, 1)}, ModelType.ControlLoRa)
        image = context.images.put(Image.new("RGB", (8, 8)))
        control = FluxControlLoRALoaderInvocation(lora=depth, image=image, weight=0).invoke(context).control_lora
        assert torch.equal(latents_of(context, denoise(control_lora=control)), latents_of(context, denoise()))

    def test_schnell_and_a_missing_vae(self, context: FakeContext, denoise: Any, install: Any, control_lora: Tensors):
        depth = install("depth", control_lora, ModelType.ControlLoRa)
        image = context.images.put(Image.new("RGB", (WIDTH, HEIGHT)))
        control = FluxControlLoRALoaderInvocation(lora=depth, image=image).invoke(context).control_lora
        with pytest.raises(ValueError, match=r"control_lora needs a VAE .* connect controlnet_vae"):
            denoise(control_lora=control).invoke(context)
        context.models.records["dev"].variant = FluxVariantType.Schnell
        with pytest.raises(ValueError, match=r"depth\S* is for FLUX\.1 dev, but dev is FLUX\.1 schnell"):
            denoise(control_lora=control).invoke(context)


def run_with(transformer: Any, task: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the latents of a transformer that reads the control image by itself."""
    task.added = tokens
    return run(transformer, task)
