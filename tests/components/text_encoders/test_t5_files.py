"""T5 encoders in GGUF files and in 8 bits: same embeddings as the original within the rounding of the format."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.separate_parts import t5_of
from invokeclone.components.text_encoders import t5_files
from invokeclone.components.text_encoders.encode import encode_t5
from invokeclone.components.text_encoders.load import load_t5, load_t5_gguf, load_t5_int8
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.quantized.packed import PackedLinear
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.config.settings import Settings
from tests.quantized_files import int8, write_gguf
from tests.quantized_forms import FULL, SCALED, quantize
from tests.tiny_transformers import context_with, make_t5

CPU = torch.device("cpu")
WIDTH = 32
_ATTENTION, _FEED_FORWARD = "layer.0.SelfAttention", "layer.1.DenseReluDense"
LLAMA_NAMES = {
    f"{_ATTENTION}.q": "attn_q", f"{_ATTENTION}.k": "attn_k", f"{_ATTENTION}.v": "attn_v", f"{_ATTENTION}.o": "attn_o",
    f"{_ATTENTION}.relative_attention_bias": "attn_rel_b", "layer.0.layer_norm": "attn_norm",
    f"{_FEED_FORWARD}.wi_0": "ffn_gate", f"{_FEED_FORWARD}.wi_1": "ffn_up", f"{_FEED_FORWARD}.wo": "ffn_down",
    "layer.1.layer_norm": "ffn_norm",
}  # fmt: skip


@pytest.fixture(scope="module")
def t5() -> tuple[Any, Any]:
    """Return a tokenizer and an encoder."""
    return make_t5(WIDTH)


@pytest.fixture(scope="module")
def gguf_file(t5: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("t5") / "t5.gguf"
    tokens = [token for token, _ in sorted(t5[0].get_vocab().items(), key=lambda pair: pair[1])]
    metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": [-float(n) for n in range(len(tokens))]}
    write_gguf(path, llama_names(t5[1].state_dict()), "Q8_0", metadata)
    return path


def llama_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an encoder's tensors with llama.cpp's names."""
    renamed = {
        "token_embd.weight": weights["shared.weight"],
        "enc.output_norm.weight": weights["encoder.final_layer_norm.weight"],
    }
    for name, value in weights.items():
        if name.startswith("encoder.block."):
            _, _, number, layer = name.removesuffix(".weight").split(".", 3)
            renamed[f"enc.blk.{number}.{LLAMA_NAMES[layer]}.weight"] = value
    return renamed


def request(path: Path, part: SubModelType, tmp_path: Path) -> LoadRequest:
    return LoadRequest(SimpleNamespace(name="t5"), path, part, torch.float32, CPU, Settings(root=tmp_path))


def assert_close(embeds: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((embeds.float() - expected).norm() / expected.norm()) < 0.03


def test_gguf(t5: tuple[Any, Any], gguf_file: Path, tmp_path: Path) -> None:
    encoder = load_t5_gguf(request(gguf_file, SubModelType.TextEncoder2, tmp_path))
    assert isinstance(encoder.encoder.block[0].layer[0].SelfAttention.q, PackedLinear)
    assert encoder.shared.weight.dtype == torch.bfloat16
    embeds = encode_t5(t5[0], encoder, "a red fox", 16, CPU)
    assert embeds.dtype == torch.bfloat16
    assert_close(embeds, encode_t5(*t5, "a red fox", 16, CPU))


def test_the_tokenizer_of_a_gguf_file(t5: tuple[Any, Any], gguf_file: Path, tmp_path: Path) -> None:
    tokenizer = load_t5_gguf(request(gguf_file, SubModelType.Tokenizer2, tmp_path))
    arguments = {"padding": "max_length", "max_length": 24, "truncation": True}
    for text in ("a red fox", "", "zebra jumps over the lazy dog again and again"):
        assert tokenizer(text, **arguments)["input_ids"] == t5[0](text, **arguments)["input_ids"]


def test_a_gguf_file_without_a_tokenizer(t5: tuple[Any, Any], tmp_path: Path) -> None:
    write_gguf(tmp_path / "t5.gguf", llama_names(t5[1].state_dict()), "Q8_0")
    with pytest.raises(ValueError, match="comes without the tokenizer of T5"):
        load_t5_gguf(request(tmp_path / "t5.gguf", SubModelType.Tokenizer2, tmp_path))


def test_an_incomplete_gguf_file(t5: tuple[Any, Any], tmp_path: Path) -> None:
    tensors = llama_names(t5[1].state_dict())
    del tensors["enc.blk.0.ffn_up.weight"]
    write_gguf(tmp_path / "t5.gguf", tensors, "Q8_0")
    with pytest.raises(ValueError, match="incomplete T5 encoder"):
        load_t5_gguf(request(tmp_path / "t5.gguf", SubModelType.TextEncoder2, tmp_path))


@pytest.mark.parametrize("form", [FULL, SCALED])
def test_a_safetensors_file(form: str, t5: tuple[Any, Any], tmp_path: Path) -> None:
    """ComfyUI's files have the tied embeddings twice or once, and no vocabulary."""
    stored = quantize(form, dict(t5[1].state_dict()))
    stored |= {
        "scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn),
        "decoder.block.0.layer.0.layer_norm.weight": torch.ones(2),
    }
    embeds = []
    for left_out in ("encoder.embed_tokens.weight", "shared.weight"):
        path = tmp_path / f"{left_out}.safetensors"
        save_file({name: value for name, value in stored.items() if name != left_out}, path)
        encoder = load_t5(request(path, SubModelType.TextEncoder2, tmp_path))
        embeds.append(encode_t5(t5[0], encoder, "a red fox", 16, CPU))
    assert_close(embeds[0], encode_t5(*t5, "a red fox", 16, CPU))
    assert torch.equal(*embeds)
    with pytest.raises(ValueError, match="comes without a tokenizer: use that of a T5 encoder in a folder"):
        load_t5(request(path, SubModelType.Tokenizer2, tmp_path))
    save_file({"shared.weight": stored["shared.weight"]}, tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match=r"empty\.safetensors holds an incomplete T5 encoder"):
        load_t5(request(tmp_path / "empty.safetensors", SubModelType.TextEncoder2, tmp_path))


def test_files_without_a_tokenizer_use_an_installed_one(model_cache: ModelCache, tmp_path: Path) -> None:
    context = context_with(model_cache)

    def add(
        path: str, form: ModelFormat, kind: ModelType = ModelType.T5Encoder, base: BaseModelType = BaseModelType.Any
    ) -> Any:
        return context.models.add(tmp_path / path, base, kind, form)

    (tmp_path / "file").touch()
    file = add("file", ModelFormat.T5Encoder)
    other = add("other", ModelFormat.BnbQuantizedLlmInt8b)
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match="file has T5 without its tokenizer: also install a T5 encoder in a folder"):
        t5_of(context, file)
    gguf = add("gguf", ModelFormat.GGUFQuantized)
    assert t5_of(context, file) == (gguf.part(SubModelType.Tokenizer2), file.part(SubModelType.TextEncoder2))
    (tmp_path / "sd3" / "tokenizer_3").mkdir(parents=True)
    main = add("sd3", ModelFormat.Diffusers, ModelType.Main, BaseModelType.StableDiffusion3)
    assert t5_of(context, other)[0] == main.part(SubModelType.Tokenizer3)
    (tmp_path / "z" / "tokenizer_2").mkdir(parents=True)
    folder = add("z", ModelFormat.SDNQQuantized)
    assert t5_of(context, file)[0] == folder.part(SubModelType.Tokenizer2)
    assert t5_of(context, folder)[0] == folder.part(SubModelType.Tokenizer2)
    assert t5_of(context, gguf)[0] == gguf.part(SubModelType.Tokenizer2)


def test_8_bits(t5: tuple[Any, Any], tmp_path: Path) -> None:
    tokenizer, original = t5
    tokenizer.save_pretrained(tmp_path / "tokenizer_2")
    folder = tmp_path / "text_encoder_2"
    original.config.save_pretrained(folder)
    stored: dict[str, torch.Tensor] = {}
    for name, value in original.state_dict().items():
        is_matrix = "SelfAttention." in name or "DenseReluDense." in name
        if is_matrix and "relative" not in name:
            stored |= int8(name.removesuffix(".weight"), value)
        elif name != "encoder.embed_tokens.weight":
            stored[name] = value.clone()
    save_file(stored, folder / "bnb_llm_int8_model.safetensors")
    encoder = load_t5_int8(request(tmp_path, SubModelType.TextEncoder2, tmp_path))
    loaded_tokenizer = load_t5_int8(request(tmp_path, SubModelType.Tokenizer2, tmp_path))
    assert isinstance(encoder.encoder.block[0].layer[1].DenseReluDense.wo, PackedLinear)
    assert_close(encode_t5(loaded_tokenizer, encoder, "a red fox", 16, CPU), encode_t5(*t5, "a red fox", 16, CPU))
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ValueError, match="no file of weights with llm_int8"):
        t5_files.load_int8_encoder(folder, torch.float32)
