"""Textual inversions: files of all layouts, and prompts with them against token numbers and embeddings written by hand."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from invokeclone.components.clip.encode import encode_pooled, encode_prompt
from invokeclone.components.clip.textual_inversion import load_textual_inversion, with_inversions
from tests.tiny_models import noise_of

CPU = torch.device("cpu")
WIDTH = 32
ONE, THREE = noise_of(1, 1, WIDTH), noise_of(2, 3, WIDTH)


@pytest.fixture
def tokenizer(sd1_parts: dict[str, Any]) -> Any:
    return sd1_parts["tokenizer"]


@pytest.fixture
def text_encoder(sd1_parts: dict[str, Any]) -> Any:
    return sd1_parts["text_encoder"]


def by_hand(tokenizer: Any, text_encoder: Any, *pieces: str | torch.Tensor) -> torch.Tensor:
    """Encode texts and vectors, one after the other, with a text encoder that has more tokens; (1, 77, width)."""
    encoder = copy.deepcopy(text_encoder)
    rows, tokens = [encoder.get_input_embeddings().weight.data], [tokenizer.bos_token_id]
    for piece in pieces:
        if isinstance(piece, torch.Tensor):
            tokens += range(sum(len(row) for row in rows), sum(len(row) for row in rows) + len(piece))
            rows.append(piece)
        else:
            tokens += tokenizer(piece)["input_ids"][1:-1]
    encoder.get_input_embeddings().weight.data = torch.cat(rows)
    tokens = [*tokens[:76], tokenizer.eos_token_id]
    tokens += [tokenizer.pad_token_id] * (77 - len(tokens))
    with torch.inference_mode():
        return encoder(torch.tensor([tokens]))[0]


def encode(tokenizer: Any, text_encoder: Any, prompt: str, **inversions: torch.Tensor) -> torch.Tensor:
    triggers = {f"<{name}>": vectors for name, vectors in inversions.items()}
    with with_inversions(tokenizer, text_encoder, triggers) as extended_tokenizer:
        return encode_prompt(extended_tokenizer, text_encoder, prompt, CPU)


class TestPrompts:
    def test_one_vector(self, tokenizer: Any, text_encoder: Any):
        embeds = encode(tokenizer, text_encoder, "a fox in <art> style", art=ONE)
        assert torch.allclose(embeds, by_hand(tokenizer, text_encoder, "a fox in", ONE, "style"), atol=1e-5)

    def test_several_vectors_and_several_triggers(self, tokenizer: Any, text_encoder: Any):
        embeds = encode(tokenizer, text_encoder, "<my art-1> a fox <b>, <my art-1>", **{"my art-1": THREE, "b": ONE})
        expected = by_hand(tokenizer, text_encoder, THREE, "a fox", ONE, ",", THREE)
        assert torch.allclose(embeds, expected, atol=1e-5)

    def test_triggers_can_be_weighted(self, tokenizer: Any, text_encoder: Any):
        plain, weighted = (
            encode(tokenizer, text_encoder, prompt, art=THREE) for prompt in ("a <art> fox", "a (<art>)1.5 fox")
        )
        empty = encode_prompt(tokenizer, text_encoder, "", CPU)
        assert torch.allclose((weighted - empty)[:, 2:5], 1.5 * (plain - empty)[:, 2:5], atol=1e-5)
        assert torch.allclose(weighted[:, :2], plain[:, :2], atol=1e-5)

    def test_long_prompts_with_several_vectors_are_truncated(self, tokenizer: Any, text_encoder: Any):
        prompt = "a b c d e f g h i j " * 10
        cut = encode(tokenizer, text_encoder, f"<art> {prompt}", art=THREE)
        assert torch.allclose(cut, by_hand(tokenizer, text_encoder, THREE, prompt), atol=1e-5)
        assert encode(tokenizer, text_encoder, f"<art> {prompt}", art=ONE).shape == (1, 2 * 77, WIDTH)

    def test_pooled(self, tokenizer: Any, text_encoder: Any):
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        config = CLIPTextConfig(**{**text_encoder.config.to_dict(), "num_hidden_layers": 1})
        encoder = CLIPTextModelWithProjection(config).eval()
        with with_inversions(tokenizer, encoder, {"<art>": THREE}) as extended_tokenizer:
            pooled = encode_pooled(extended_tokenizer, encoder, "a <art> fox", CPU)
        states = by_hand(tokenizer, encoder.text_model, "a", THREE, "fox")
        end = 1 + 1 + 3 + len(tokenizer("fox")["input_ids"][1:-1])
        with torch.inference_mode():
            assert torch.allclose(pooled, encoder.text_projection(states[:, end]), atol=1e-5)

    def test_model_and_tokenizer_are_restored_after_an_error(self, tokenizer: Any, text_encoder: Any):
        weight = text_encoder.get_input_embeddings().weight
        address, values, size = weight.data_ptr(), weight.clone(), len(tokenizer)
        with pytest.raises(KeyError), with_inversions(tokenizer, text_encoder, {"<art>": THREE}):
            assert len(weight) == size + 3
            raise KeyError
        assert text_encoder.get_input_embeddings().weight is weight
        assert weight.data_ptr() == address
        assert torch.equal(weight, values)
        assert len(tokenizer) == size
        before = encode_prompt(tokenizer, text_encoder, "a <art> fox", CPU)
        assert torch.allclose(before, by_hand(tokenizer, text_encoder, "a <art> fox"), atol=1e-5), "plain text again"

    def test_without_inversions_the_tokenizer_is_returned_unchanged(self, tokenizer: Any, text_encoder: Any):
        with with_inversions(tokenizer, text_encoder, {}) as result:
            assert result is tokenizer

    def test_vectors_of_another_width_are_refused(self, tokenizer: Any, text_encoder: Any):
        with (
            pytest.raises(ValueError, match="<art> has vectors of width 768, the text encoder's have 32"),
            with_inversions(tokenizer, text_encoder, {"<art>": torch.ones(1, 768)}),
        ):
            pytest.fail("it is applied")

    def test_vectors_are_cast_to_the_encoders_dtype(self, tokenizer: Any, text_encoder: Any):
        half = copy.deepcopy(text_encoder).half()
        with with_inversions(tokenizer, half, {"<art>": ONE}):
            weight = half.get_input_embeddings().weight
            assert torch.equal(weight[-1], ONE[0].half())


class TestFiles:
    @pytest.mark.parametrize(
        "content",
        [
            {"string_to_token": {"*": 265}, "string_to_param": {"*": THREE}, "name": "art", "step": 500},
            {"string_to_param": nn.ParameterDict({"art": nn.Parameter(THREE)})},
            {"emb_params": THREE},
            {"<art>": THREE},
        ],
    )
    def test_torch_files(self, tmp_path: Path, content: dict[str, Any]):
        torch.save(content, tmp_path / "art.pt")
        (vectors,) = load_textual_inversion(tmp_path / "art.pt").vectors
        assert torch.equal(vectors, THREE)
        assert not vectors.requires_grad

    @pytest.mark.parametrize("name", ["emb_params", "<art>"])
    def test_safetensors(self, tmp_path: Path, name: str):
        save_file({name: ONE[0]}, tmp_path / "art.safetensors")
        inversion = load_textual_inversion(tmp_path / "art.safetensors")
        assert torch.equal(inversion.vectors[0], ONE), "a single vector gets its axis"
        assert inversion.calc_size() == WIDTH * 4

    def test_pairs_for_sdxl(self, tmp_path: Path):
        save_file({"clip_g": noise_of(1, 2, 5), "clip_l": noise_of(2, 2, 3)}, tmp_path / "x.safetensors")
        inversion = load_textual_inversion(tmp_path / "x.safetensors")
        assert torch.equal(inversion.of_width(5), noise_of(1, 2, 5))
        assert torch.equal(inversion.of_width(3), noise_of(2, 2, 3))
        assert inversion.of_width(4) is None

    @pytest.mark.parametrize("name", ["learned_embeds.bin", "learned_embeds.safetensors"])
    def test_folders(self, tmp_path: Path, name: str):
        torch.save({"<art>": ONE}, tmp_path / name) if name.endswith("bin") else save_file({"a": ONE}, tmp_path / name)
        assert torch.equal(load_textual_inversion(tmp_path).vectors[0], ONE)

    def test_damaged_files_are_refused(self, tmp_path: Path):
        path = tmp_path / "art.safetensors"
        save_file({"emb_params": torch.full((1, 4), torch.nan)}, path)
        with pytest.raises(ValueError, match=r"art\.safetensors is damaged.*NaN"):
            load_textual_inversion(path)
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(ValueError, match="cannot be read; download it again"):
            load_textual_inversion(path)
        for none in (torch.ones(1, 1, 4), torch.ones(0, 4)):
            save_file({"emb_params": none}, path)
            with pytest.raises(ValueError, match="holds no vectors"):
                load_textual_inversion(path)
