"""LoRAs of Stable Diffusion: names of layers, the nodes that note them, and runs with them against weights merged by hand."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.clip.encode import encode_prompt, skip_layers
from invokeclone.components.denoisers.lora_fields import LoRANotApplicable
from invokeclone.components.denoisers.loras import patch_loras
from invokeclone.families.stable_diffusion import single_files
from invokeclone.families.stable_diffusion.fields import ModelLoaderOutput
from invokeclone.families.stable_diffusion.lora_keys import LAYOUT, diffusers_name
from invokeclone.families.stable_diffusion.nodes.loras import (
    LoRACollectionLoader,
    LoRALoaderInvocation,
    SDXLLoRACollectionLoader,
    SDXLLoRALoaderInvocation,
)
from invokeclone.families.stable_diffusion.nodes.models import CLIPSkipInvocation
from invokeclone.families.stable_diffusion.nodes.prompts import CompelInvocation
from invokeclone.graph.invocations.metadata import UnknownModel, WrongModelType
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.nodes.models.loaders import LoRASelectorInvocation
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import CPU, latents_of
from tests.families.stable_diffusion.library import Library
from tests.tiny_models import noise_of

UNET_LAYERS = (
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "down_blocks.0.resnets.0.conv1",
    "conv_norm_out",
)
TEXT_LAYERS = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.2.mlp.fc1")


@pytest.fixture
def library(context: FakeContext) -> Library:
    context.models = Library(context.models)
    return context.models


def deltas(model: torch.nn.Module, layers: tuple[str, ...], seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of a LoRA by layer: matrices for weights of two dimensions or more, differences for norms."""
    tensors_by_layer = {}
    for index, layer in enumerate(layers):
        shape = model.get_submodule(layer).weight.shape
        if len(shape) == 1:
            tensors_by_layer[layer] = {"w_norm": noise_of(seed + index, *shape)}
            continue
        up, down = noise_of(seed + index, shape[0], 2), noise_of(seed - index, 2, *shape[1:])
        tensors_by_layer[layer] = {
            "lora_up.weight": up.reshape(shape[0], 2, *[1] * (len(shape) - 2)),
            "lora_down.weight": down,
        }
    return tensors_by_layer


def merge(model: torch.nn.Module, layers: dict[str, dict[str, torch.Tensor]], weight: float) -> torch.nn.Module:
    """Return a copy of a model with new weights."""
    copied = copy.deepcopy(model)
    for name, tensors in layers.items():
        parameter = copied.get_submodule(name).weight
        if "w_norm" in tensors:
            parameter.data += weight * tensors["w_norm"]
        else:
            product = tensors["lora_up.weight"].flatten(1) @ tensors["lora_down.weight"].flatten(1)
            parameter.data += weight * product.reshape(parameter.shape)
    return copied


Install = Callable[..., ModelIdentifierField]


@pytest.fixture
def install(library: Library, tmp_path: Path) -> Install:
    """Install a LoRA with the tensors of layers under a prefix, as kohya names them; returns its identifier."""

    def install_lora(
        name: str = "style", base: Any = BaseModelType.StableDiffusion1, **parts: Any
    ) -> ModelIdentifierField:
        tensors = {
            f"{prefix}_{layer.replace('.', '_')}.{kind}": tensor.contiguous()
            for prefix, layers in parts.items()
            for layer, kinds in layers.items()
            for kind, tensor in kinds.items()
        }
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        return library.add(name, path, base=base, type=ModelType.LoRA, format=ModelFormat.LyCORIS)

    return install_lora


@pytest.fixture
def lora(install: Install, sd1_parts: dict[str, Any]) -> ModelIdentifierField:
    unet = deltas(sd1_parts["unet"], UNET_LAYERS, 20)
    text = {f"text_model.{name}": kinds for name, kinds in deltas(sd1_parts["text_encoder"], TEXT_LAYERS, 30).items()}
    return install(lora_unet=unet, lora_te=text)


class TestNames:
    def test_original_names_map_to_diffusers_names(self):
        """Diffusers converts kohya's files for SDXL, too."""
        from diffusers.loaders import lora_conversion_utils as diffusers_conversion

        attention = "transformer_blocks_1_attn1_to_q"
        names = [f"input_blocks_{block}_0_{layer}" for block in (1, 2, 4, 5, 7, 8) for layer in RESNET]
        names += [f"input_blocks_{block}_1_{attention}" for block in (4, 5, 7, 8)]
        names += ["middle_block_0_in_layers_2", f"middle_block_1_{attention}", "middle_block_2_out_layers_3"]
        names += [f"output_blocks_{block}_0_{layer}" for block in range(9) for layer in RESNET]
        names += [f"output_blocks_{block}_1_{attention}" for block in range(6)]
        tensors = {f"lora_unet_{name}.lora_{side}.weight": index for index, name in enumerate(names) for side in SIDES}
        config = SimpleNamespace(layers_per_block=2)
        renamed = diffusers_conversion._maybe_map_sgm_blocks_to_diffusers(dict(tensors), config)
        expected_names = {index: name.partition(".lora_")[0] for name, index in renamed.items()}
        layers = {"in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_3": "conv2"}
        layers |= {"skip_connection": "conv_shortcut", "input_blocks": "down_blocks"}
        layers |= {"middle_block": "mid_block", "output_blocks": "up_blocks"}
        for index, name in enumerate(names):
            expected = expected_names[index].removeprefix("lora_unet_")
            for original, replacement in layers.items():
                expected = expected.replace(original, replacement)
            assert diffusers_name(name) == expected, name

    def test_every_layer_is_in_the_published_unet(self):
        """Names of all layers of SDXL's checkpoints that LoRAs change lead to a module."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        config = UNet2DConditionModel.load_config(single_files.configs_of(BaseModelType.StableDiffusionXL) / "unet")
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
        modules = {name.replace(".", "_"): module for name, module in unet.named_modules()}
        names = ["input_blocks_0_0", "input_blocks_3_0_op", "input_blocks_6_0_op", "out_0", "out_2"]
        names += ["time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2"]
        names += ["output_blocks_2_2_conv", "output_blocks_5_2_conv"]
        for name in names:
            assert hasattr(modules[diffusers_name(name)], "weight"), name

    @pytest.mark.parametrize("name", ["down_blocks_1_attentions_0_proj_in", "mid_block_resnets_0_conv1", "conv_in"])
    def test_diffusers_names_are_unchanged(self, name: str):
        assert diffusers_name(name) == name

    @pytest.mark.parametrize(
        ("prefix", "part"),
        [
            ("lora_unet_", "unet"),
            ("unet.", "unet"),
            ("lora_te_", "clip"),
            ("lora_te1_", "clip"),
            ("lora_te2_", "clip2"),
            ("text_encoder.", "clip"),
            ("text_encoder_2.", "clip2"),
            ("clip_l.", "clip"),
            ("clip_g.", "clip2"),
        ],
    )
    def test_name_prefixes_select_the_part(self, prefix: str, part: str):
        from invokeclone.engine.lora.keys import read_name

        meaning = read_name(f"{prefix}mid_block.lora_A.weight", LAYOUT)
        assert meaning is not None
        assert (meaning.part, meaning.layer) == (part, "mid_block")


RESNET = ("in_layers_2", "emb_layers_1", "out_layers_3", "skip_connection")
SIDES = ("up", "down")


class TestNodes:
    def test_the_lora_is_added_to_unet_and_clip(
        self, context: FakeContext, model: ModelLoaderOutput, lora: ModelIdentifierField
    ):
        output = LoRALoaderInvocation(lora=lora, weight=0.3, unet=model.unet, clip=model.clip).invoke(context)
        noted = [LoRAField(lora=lora, weight=0.3)]
        assert output.unet == model.unet.model_copy(update={"loras": noted})
        assert output.clip == model.clip.model_copy(update={"loras": noted})
        assert model.unet.loras == []

    def test_unet_or_clip_may_be_omitted(
        self, context: FakeContext, model: ModelLoaderOutput, lora: ModelIdentifierField
    ):
        output = LoRALoaderInvocation(lora=lora, clip=model.clip).invoke(context)
        assert output.unet is None
        assert output.clip is not None
        assert [field.weight for field in output.clip.loras] == [0.75]

    def test_a_collection(
        self, context: FakeContext, model: ModelLoaderOutput, lora: ModelIdentifierField, install: Install
    ):
        other = install("other")
        fields = [
            LoRASelectorInvocation(lora=identifier, weight=0.2).invoke(context).lora for identifier in (lora, other)
        ]
        output = LoRACollectionLoader(loras=fields, unet=model.unet, clip=model.clip).invoke(context)
        assert output.unet is not None
        assert [(field.lora.key, field.weight) for field in output.unet.loras] == [("style", 0.2), ("other", 0.2)]
        assert LoRACollectionLoader(loras=None, unet=model.unet).invoke(context).unet == model.unet
        single = LoRACollectionLoader(loras=fields[1], unet=model.unet).invoke(context).unet
        assert single is not None
        assert single.loras == [fields[1]]

    @pytest.mark.parametrize("node", ["one by one", "collection"])
    def test_applying_the_same_lora_twice_is_refused(
        self, context: FakeContext, model: ModelLoaderOutput, lora: ModelIdentifierField, node: str
    ):
        once = LoRALoaderInvocation(lora=lora, unet=model.unet).invoke(context)
        nodes = {
            "one by one": LoRALoaderInvocation(lora=lora, unet=once.unet),
            "collection": LoRACollectionLoader(loras=[LoRAField(lora=lora, weight=1)] * 2, unet=model.unet),
        }
        with pytest.raises(LoRANotApplicable, match="style is applied twice"):
            nodes[node].invoke(context)

    def test_a_model_of_another_type_is_refused(self, context: FakeContext, model: ModelLoaderOutput, library: Library):
        main = library.add("main", Path("x"), base=BaseModelType.StableDiffusion1, type=ModelType.Main)
        with pytest.raises(WrongModelType, match="main is a model of type main: select one of type lora"):
            LoRALoaderInvocation(lora=main, unet=model.unet).invoke(context)

    def test_unknown_loras_are_refused(
        self, context: FakeContext, model: ModelLoaderOutput, lora: ModelIdentifierField
    ):
        unknown = lora.model_copy(update={"key": "gone", "name": "gone"})
        for node in (
            LoRALoaderInvocation(lora=unknown, unet=model.unet),
            LoRASelectorInvocation(lora=unknown),
            LoRACollectionLoader(loras=[LoRAField(lora=unknown, weight=1)], unet=model.unet),
        ):
            with pytest.raises(UnknownModel, match="gone"):
                node.invoke(context)

    def test_loras_of_another_base_are_refused(self, context: FakeContext, model: ModelLoaderOutput, install: Install):
        sdxl = install("xl", BaseModelType.StableDiffusionXL)
        with pytest.raises(LoRANotApplicable, match="xl is for sdxl models, but tiny-sd1 is a sd-1 model"):
            LoRALoaderInvocation(lora=sdxl, unet=model.unet).invoke(context)

    def test_sdxl(self, context: FakeContext, model: ModelLoaderOutput, install: Install):
        context.models.record = SimpleNamespace(
            **{**vars(context.models.record), "base": BaseModelType.StableDiffusionXL}
        )
        fields = [LoRAField(lora=install(name, BaseModelType.StableDiffusionXL), weight=0.75) for name in ("a", "b")]
        inputs = {"unet": model.unet, "clip": model.clip, "clip2": model.clip}
        single = SDXLLoRALoaderInvocation(lora=fields[0].lora, **inputs).invoke(context)
        combined = SDXLLoRACollectionLoader(loras=fields, **inputs).invoke(context)
        for output, expected in ((single, fields[:1]), (combined, fields)):
            for part in (output.unet, output.clip, output.clip2):
                assert part is not None
                assert part.loras == expected


class TestRuns:
    def test_denoising(
        self,
        context: FakeContext,
        denoise_node: Any,
        model: ModelLoaderOutput,
        lora: ModelIdentifierField,
        sd1_parts: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ):
        unet = LoRALoaderInvocation(lora=lora, weight=0.05, unet=model.unet).invoke(context).unet
        plain = latents_of(context, denoise_node().invoke(context))
        latents = latents_of(context, denoise_node(unet=unet).invoke(context))
        assert torch.equal(latents_of(context, denoise_node().invoke(context)), plain), "the LoRA is off again"
        merged = merge(sd1_parts["unet"], deltas(sd1_parts["unet"], UNET_LAYERS, 20), 0.05)
        cached = context.models.cache.get("tiny:unet", lambda: pytest.fail("it is loaded"))
        monkeypatch.setattr(cached, "model", merged)
        expected = latents_of(context, denoise_node().invoke(context))
        assert torch.allclose(latents, expected, atol=1e-4)
        assert not torch.allclose(latents, plain, atol=1e-2)

    def test_an_out_of_memory_run_restores_the_model(
        self,
        context: FakeContext,
        denoise_node: Any,
        model: ModelLoaderOutput,
        lora: ModelIdentifierField,
        monkeypatch: pytest.MonkeyPatch,
    ):
        plain = latents_of(context, denoise_node().invoke(context))
        cached = context.models.cache.get("tiny:unet", lambda: pytest.fail("it is loaded"))
        before = {name: parameter.data_ptr() for name, parameter in cached.model.named_parameters()}
        patched = []

        def without_memory(*_inputs: Any, **_named: Any) -> Any:
            patched.extend(module for module in cached.model.modules() if module._forward_hooks)
            patched.extend(
                name for name, weight in cached.model.named_parameters() if weight.data_ptr() != before[name]
            )
            raise torch.OutOfMemoryError("out of memory")

        unet = LoRALoaderInvocation(lora=lora, unet=model.unet).invoke(context).unet
        with monkeypatch.context() as patch:
            patch.setattr(cached.model, "forward", without_memory)
            with pytest.raises(torch.OutOfMemoryError):
                denoise_node(unet=unet).invoke(context)
        assert len(patched) == len(UNET_LAYERS), "the LoRA was on"
        assert {name: weight.data_ptr() for name, weight in cached.model.named_parameters()} == before
        assert not any(module._forward_hooks for module in cached.model.modules())
        assert cached.locks == 0
        assert torch.equal(latents_of(context, denoise_node().invoke(context)), plain)

    @pytest.mark.parametrize("skip", [0, 1])
    def test_prompts(
        self,
        context: FakeContext,
        model: ModelLoaderOutput,
        lora: ModelIdentifierField,
        sd1_parts: dict[str, Any],
        skip: int,
    ):
        clip = LoRALoaderInvocation(lora=lora, weight=0.1, clip=model.clip).invoke(context).clip
        clip = CLIPSkipInvocation(clip=clip, skipped_layers=skip).invoke(context).clip
        name = CompelInvocation(prompt="a cat", clip=clip).invoke(context).conditioning.conditioning_name
        embeds = context.conditioning.load(name).conditionings[0].embeds
        text_encoder = sd1_parts["text_encoder"]
        merged = merge(text_encoder, deltas(text_encoder, TEXT_LAYERS, 30), 0.1)
        with skip_layers(merged, skip):
            expected = encode_prompt(sd1_parts["tokenizer"], merged, "a cat", CPU)
        with skip_layers(text_encoder, skip):
            plain = encode_prompt(sd1_parts["tokenizer"], text_encoder, "a cat", CPU)
        assert torch.allclose(embeds, expected, atol=1e-4)
        assert not torch.allclose(embeds, plain, atol=1e-2)

    def test_both_text_encoders_of_sdxl(self, context: FakeContext, install: Install, sd1_parts: dict[str, Any]):
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        first = sd1_parts["text_encoder"]
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(**{**first.config.to_dict(), "num_hidden_layers": 1})
        ).eval()
        first_deltas, second_deltas = (
            deltas(first, TEXT_LAYERS[:1], 40),
            deltas(second, (f"text_model.{TEXT_LAYERS[0]}",), 50),
        )
        lora = install(
            lora_te1={f"text_model.{name}": kinds for name, kinds in first_deltas.items()}, lora_te2=second_deltas
        )
        tokens, fields = torch.tensor([[512, 3, 4, 513]]), [LoRAField(lora=lora, weight=0.5)]
        for encoder, part, layers in ((first, "clip", first_deltas), (second, "clip2", second_deltas)):
            with torch.inference_mode(), patch_loras(context, fields, encoder, part):
                hidden_states = encoder(tokens).last_hidden_state
            expected = merge(encoder, layers, 0.5)(tokens).last_hidden_state
            assert torch.allclose(hidden_states, expected, atol=1e-4)

    def test_a_damaged_file(
        self, context: FakeContext, denoise_node: Any, model: ModelLoaderOutput, lora: ModelIdentifierField
    ):
        path = Path(context.models.others["style"].path)
        path.write_bytes(path.read_bytes()[:-10])
        unet = LoRALoaderInvocation(lora=lora, unet=model.unet).invoke(context).unet
        with pytest.raises(ValueError, match=r"style\.safetensors cannot be read"):
            denoise_node(unet=unet).invoke(context)
        assert context.models.cache.get("tiny:unet", lambda: pytest.fail("it is loaded")).locks == 0

    def test_a_lora_without_layers_for_a_part(self, context: FakeContext, install: Install, sd1_parts: dict[str, Any]):
        lora = install(lora_unet=deltas(sd1_parts["unet"], UNET_LAYERS, 20))
        tokens = torch.tensor([[512, 3, 513]])
        with torch.inference_mode():
            plain = sd1_parts["text_encoder"](tokens)[0]
            with patch_loras(context, [LoRAField(lora=lora, weight=1)], sd1_parts["text_encoder"], "clip"):
                assert torch.equal(sd1_parts["text_encoder"](tokens)[0], plain)

    def test_loras_with_zero_weight_are_not_loaded(
        self, context: FakeContext, lora: ModelIdentifierField, sd1_parts: dict[str, Any]
    ):
        Path(context.models.others["style"].path).unlink()
        with patch_loras(context, [LoRAField(lora=lora, weight=0)], sd1_parts["unet"], "unet"):
            assert context.models.cache.keys() == []
