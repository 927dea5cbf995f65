"""LoRAs and textual inversions on both text encoders of SDXL, against weights merged and tokens added by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.clip.encode import encode_pooled, encode_prompt
from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.clip.textual_inversion import with_inversions
from invokeclone.families.stable_diffusion.nodes.sdxl import (
    SDXLCompelPromptInvocation,
    SDXLRefinerCompelPromptInvocation,
)
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import CPU
from tests.families.stable_diffusion.library import Library
from tests.tiny_models import noise_of

SDXL = BaseModelType.StableDiffusionXL
WIDTH = 16
LAYER = "encoder.layers.0.self_attn.q_proj"
FLAT = f"text_model_{LAYER.replace('.', '_')}"
WEIGHT = 0.5


class Loaded:
    """A part that is there already."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, SimpleNamespace(base=SDXL)

    def __enter__(self) -> Any:
        return self.model

    def __exit__(self, *details: object) -> None:
        pass


class Parts(Library):
    """The text encoders of a tiny SDXL, and models in files."""

    parts: dict[str, Any]

    def load(self, identifier: Any, submodel_type: Any = None) -> Any:
        name = getattr(identifier, "submodel_type", None)
        return Loaded(self.parts[name]) if name else super().load(identifier, submodel_type)


@pytest.fixture
def parts(sd1_parts: dict[str, Any]) -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(1)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 20, "num_attention_heads": 2, "projection_dim": WIDTH}
    config = CLIPTextConfig(**{**sd1_parts["text_encoder"].config.to_dict(), **sizes})
    return {
        "text_encoder": sd1_parts["text_encoder"],
        "tokenizer": sd1_parts["tokenizer"],
        "text_encoder_2": CLIPTextModelWithProjection(config).eval(),
        "tokenizer_2": sd1_parts["tokenizer"],
    }


@pytest.fixture
def matrices(parts: dict[str, Any]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (noise_of(40, parts[name].config.hidden_size, 2), noise_of(41, 2, parts[name].config.hidden_size))
        for name in ("text_encoder", "text_encoder_2")
    }


@pytest.fixture
def loras(
    context: FakeContext, parts: dict[str, Any], matrices: dict[str, tuple[torch.Tensor, torch.Tensor]], tmp_path: Path
) -> list[LoRAField]:
    """Install a LoRA for both encoders and the embedding "art", and return the LoRA."""
    context.models = models = Parts(context.models)
    models.parts = parts
    tensors = {}
    for prefix, name in (("lora_te1_", "text_encoder"), ("lora_te2_", "text_encoder_2")):
        up, down = matrices[name]
        tensors |= {f"{prefix}{FLAT}.lora_up.weight": up, f"{prefix}{FLAT}.lora_down.weight": down}
    save_file(tensors, tmp_path / "style.safetensors")
    kind = {"type": ModelType.LoRA, "format": ModelFormat.LyCORIS}
    lora = models.add("style", tmp_path / "style.safetensors", base=SDXL, **kind)
    save_file({"clip_l": noise_of(5, 2, 32), "clip_g": noise_of(6, 2, WIDTH)}, tmp_path / "art.safetensors")
    kind = {"type": ModelType.TextualInversion, "format": ModelFormat.EmbeddingFile}
    models.add("art", tmp_path / "art.safetensors", base=SDXL, **kind)
    return [LoRAField(lora=lora, weight=WEIGHT)]


def clip(suffix: str, loras: list[LoRAField]) -> CLIPField:
    whole = ModelIdentifierField(key="tiny", hash="blake3:0", name="tiny", base=SDXL, type=ModelType.Main)
    names = (SubModelType(f"tokenizer{suffix}"), SubModelType(f"text_encoder{suffix}"))
    tokenizer, text_encoder = (whole.part(name) for name in names)
    return CLIPField(tokenizer=tokenizer, text_encoder=text_encoder, loras=loras, skipped_layers=0)


def embeds_by_hand(
    parts: dict[str, Any], matrices: dict[str, tuple[torch.Tensor, torch.Tensor]], prompt: str, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings and the pooled one with new weights, and vectors put in by hand."""
    embeds, pooled = [], None
    for name, vectors in (("text_encoder", noise_of(5, 2, 32)), ("text_encoder_2", noise_of(6, 2, WIDTH))):
        encoder, tokenizer = parts[name], parts["tokenizer"]
        layer = getattr(encoder, "text_model", encoder).get_submodule(LAYER)
        original = layer.weight.data
        layer.weight.data = original + weight * matrices[name][0] @ matrices[name][1]
        with with_inversions(tokenizer, encoder, {"<art>": vectors}) as extended_tokenizer:
            embeds.append(encode_prompt(extended_tokenizer, encoder, prompt, CPU, penultimate=True))
            pooled = encode_pooled(extended_tokenizer, encoder, prompt, CPU) if name == "text_encoder_2" else None
        layer.weight.data = original
    assert pooled is not None
    return torch.cat(embeds, dim=-1), pooled


def test_both_encoders(
    context: FakeContext,
    parts: dict[str, Any],
    matrices: dict[str, tuple[torch.Tensor, torch.Tensor]],
    loras: list[LoRAField],
):
    prompt = "a <art> fox"
    node = SDXLCompelPromptInvocation(prompt=prompt, clip=clip("", loras), clip2=clip("_2", loras))
    conditioning = context.conditioning.load(node.invoke(context).conditioning.conditioning_name).conditionings[0]
    embeds, pooled = embeds_by_hand(parts, matrices, prompt, WEIGHT)
    assert torch.allclose(conditioning.embeds, embeds, atol=1e-4)
    assert torch.allclose(conditioning.pooled_embeds, pooled, atol=1e-4)
    plain, _ = embeds_by_hand(parts, matrices, prompt, 0)
    for side in (slice(0, 32), slice(32, None)):
        assert not torch.allclose(conditioning.embeds[..., side], plain[..., side], atol=1e-2)


def test_the_refiners_encoder_has_no_loras(
    context: FakeContext,
    parts: dict[str, Any],
    matrices: dict[str, tuple[torch.Tensor, torch.Tensor]],
    loras: list[LoRAField],
):
    node = SDXLRefinerCompelPromptInvocation(style="a fox", clip2=clip("_2", loras))
    conditioning = context.conditioning.load(node.invoke(context).conditioning.conditioning_name).conditionings[0]
    plain, _ = embeds_by_hand(parts, matrices, "a fox", 0)
    assert torch.allclose(conditioning.embeds, plain[..., 32:], atol=1e-5)
