"""Which textual inversions a prompt names, and prompts with them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.clip.encode import encode_prompt
from invokeclone.components.clip.textual_inversion import with_inversions
from invokeclone.families.stable_diffusion.fields import ModelLoaderOutput
from invokeclone.families.stable_diffusion.nodes.prompts import CompelInvocation
from invokeclone.families.stable_diffusion.textual_inversions import with_embeddings
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import CPU
from tests.families.stable_diffusion.library import Library
from tests.tiny_models import noise_of

SD1, SDXL = BaseModelType.StableDiffusion1, BaseModelType.StableDiffusionXL
VECTORS = noise_of(5, 2, 32)


@pytest.fixture
def library(context: FakeContext, tmp_path: Path) -> Library:
    """Have the embeddings "art" (its key is "key-1"), and "xl", a pair for SDXL, and a LoRA."""
    context.models = library = Library(context.models)
    kind = {"type": ModelType.TextualInversion, "format": ModelFormat.EmbeddingFile}
    save_file({"emb_params": VECTORS}, tmp_path / "art.safetensors")
    library.add("key-1", tmp_path / "art.safetensors", base=SD1, **kind)
    library.others["key-1"].name = "art"
    save_file({"clip_l": VECTORS, "clip_g": noise_of(6, 2, 16)}, tmp_path / "xl.safetensors")
    library.add("xl", tmp_path / "xl.safetensors", base=SDXL, **kind)
    library.add("lora", tmp_path / "x", base=SD1, type=ModelType.LoRA, format=ModelFormat.LyCORIS)
    return library


def compel(context: FakeContext, model: ModelLoaderOutput, prompt: str) -> torch.Tensor:
    name = CompelInvocation(prompt=prompt, clip=model.clip).invoke(context).conditioning.conditioning_name
    return context.conditioning.load(name).conditionings[0].embeds


@pytest.mark.usefixtures("library")
class TestTriggers:
    @pytest.mark.parametrize("trigger", ["<art>", "<key-1>"])
    def test_triggers_match_by_name_or_key(
        self, context: FakeContext, model: ModelLoaderOutput, sd1_parts: dict[str, Any], trigger: str
    ):
        embeds = compel(context, model, f"a {trigger} fox")
        tokenizer, text_encoder = sd1_parts["tokenizer"], sd1_parts["text_encoder"]
        with with_inversions(tokenizer, text_encoder, {"<art>": VECTORS}) as extended_tokenizer:
            expected = encode_prompt(extended_tokenizer, text_encoder, "a <art> fox", CPU)
        assert torch.allclose(embeds, expected, atol=1e-5)
        assert not torch.allclose(embeds, compel(context, model, "a fox"), atol=1e-2)
        assert context.logger.lines == []

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("nothing", "no embedding has this name"),
            ("xl", "xl is not an embedding for sd-1 but of type embedding for sdxl"),
            ("lora", "lora is not an embedding for sd-1 but of type lora for sd-1"),
        ],
    )
    def test_unusable_triggers_stay_text_and_warn_once(
        self, context: FakeContext, model: ModelLoaderOutput, sd1_parts: dict[str, Any], name: str, reason: str
    ):
        embeds = compel(context, model, f"a <{name}> fox, <{name}>")
        expected = encode_prompt(sd1_parts["tokenizer"], sd1_parts["text_encoder"], f"a <{name}> fox, <{name}>", CPU)
        assert torch.allclose(embeds, expected, atol=1e-5)
        assert context.logger.lines == [("warning", f"<{name}> is treated as text: {reason}")]

    def test_a_name_of_another_base(self, context: FakeContext, library: Library, model: ModelLoaderOutput):
        library.others["key-2"] = SimpleNamespace(**{**vars(library.others.pop("xl")), "key": "key-2", "name": "other"})
        compel(context, model, "<other>")
        assert context.logger.lines == [
            ("warning", "<other> is treated as text: the embedding of this name is for sdxl models")
        ]

    @pytest.mark.parametrize("prompt", ["a < b and c > d", "a fox", "<a/b>", "<>"])
    def test_other_bracketed_text_is_not_a_trigger(self, context: FakeContext, sd1_parts: dict[str, Any], prompt: str):
        tokenizer = sd1_parts["tokenizer"]
        with with_embeddings(context, prompt, tokenizer, sd1_parts["text_encoder"], SD1) as result:
            assert result is tokenizer
        assert context.models.loaded == []
        if "/" in prompt:
            assert context.logger.lines == []


@pytest.mark.usefixtures("library")
class TestSDXL:
    def test_each_encoder_gets_vectors_of_its_width(self, context: FakeContext, sd1_parts: dict[str, Any]):
        narrow = torch.nn.Embedding(514, 16)
        second = SimpleNamespace(get_input_embeddings=lambda: narrow)
        for encoder, expected in ((sd1_parts["text_encoder"], VECTORS), (second, noise_of(6, 2, 16))):
            with with_embeddings(context, "<xl>", sd1_parts["tokenizer"], encoder, SDXL):
                assert torch.equal(encoder.get_input_embeddings().weight[-2:], expected)

    def test_a_file_for_one_encoder(self, context: FakeContext, library: Library, sd1_parts: dict[str, Any]):
        library.others["key-1"].base = SDXL
        second = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(514, 16))
        with (
            pytest.raises(ValueError, match="<art> has vectors of width 32, the text encoder's have 16"),
            with_embeddings(context, "<art>", sd1_parts["tokenizer"], second, SDXL),
        ):
            pytest.fail("it is applied")
