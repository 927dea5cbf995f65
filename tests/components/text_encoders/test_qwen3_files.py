"""Qwen3 encoders in single files: same hidden states as the folder; tokenizers in GGUF files and of other models."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.text_encoders.load import load_qwen3_file
from invokeclone.components.text_encoders.names import BLOCK_NAMES
from invokeclone.components.text_encoders.qwen3 import encode_qwen3
from invokeclone.components.text_encoders.tokenizer_sources import tokenizer_source
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.quantized.packed import PackedLinear
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.config.settings import Settings
from tests.quantized_files import write_gguf
from tests.tiny_transformers import context_with, make_qwen3

CPU = torch.device("cpu")
TEXT = "<|im_start|>user\na red fox<|im_end|>"


@pytest.fixture(scope="module")
def qwen3() -> tuple[Any, Any]:
    tokenizer, model = make_qwen3()
    return tokenizer, model.to(torch.bfloat16)


@pytest.fixture(scope="module")
def gguf_file(qwen3: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3") / "qwen3.gguf"
    tokens = [token for token, _ in sorted(qwen3[0].get_vocab().items(), key=lambda pair: pair[1])]
    tokens[200:203] = ["re", "fo", "fox"]  # in place of bytes that the text does not have
    types = [3 if token.startswith("<|") else 1 for token in tokens]
    lists = {"tokens": tokens, "merges": ["r e", "f o", "fo x"], "token_type": types}
    names = {module: name for name, module in BLOCK_NAMES.items()}
    tensors = {}
    for name, value in qwen3[1].model.state_dict().items():
        if name.startswith("layers."):
            _, number, layer = name.removesuffix(".weight").split(".", 2)
            tensors[f"blk.{number}.{names[layer]}.weight"] = value
        else:
            outer = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
            tensors[outer[name]] = value
    write_gguf(path, tensors, "Q8_0", {f"tokenizer.ggml.{name}": values for name, values in lists.items()})
    return path


def load(path: Path, form: ModelFormat, part: SubModelType = SubModelType.TextEncoder) -> Any:
    record = SimpleNamespace(name="qwen3", format=form)
    return load_qwen3_file(LoadRequest(record, path, part, torch.float32, CPU, Settings(root=path.parent)))


def states(tokenizer: Any, encoder: Any) -> torch.Tensor:
    return encode_qwen3(tokenizer, encoder, TEXT, [-2], CPU)[0]


@pytest.mark.parametrize("prefix", ["", "model.", "text_model."])
def test_a_file_equals_the_folder(prefix: str, qwen3: tuple[Any, Any], tmp_path: Path) -> None:
    tokenizer, model = qwen3
    tensors = {f"{prefix}{name}": value for name, value in model.model.state_dict().items()}
    save_file(tensors | {"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "qwen3.safetensors")
    encoder = load(tmp_path / "qwen3.safetensors", ModelFormat.Checkpoint)
    assert encoder.dtype == torch.bfloat16
    config = model.config
    assert encoder.config.rope_parameters["rope_theta"] == 1e6
    assert encoder.config.num_key_value_heads == config.num_key_value_heads
    theta = encoder.rotary_emb.inv_freq
    torch.testing.assert_close(theta, 1e6 ** (-torch.arange(0, 8, 2) / 8))
    model.model.rotary_emb.inv_freq = theta  # the tiny model of the test was made with another theta
    assert torch.equal(states(tokenizer, encoder), states(tokenizer, model.model))


def test_a_gguf_file_stays_quantized_and_has_its_tokenizer(qwen3: tuple[Any, Any], gguf_file: Path) -> None:
    tokenizer, model = qwen3
    encoder = load(gguf_file, ModelFormat.GGUFQuantized)
    assert isinstance(encoder.layers[0].self_attn.q_proj, PackedLinear)
    model.model.rotary_emb.inv_freq = encoder.rotary_emb.inv_freq
    expected = states(tokenizer, model.model).float()
    assert (states(tokenizer, encoder).float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    stored = load(gguf_file, ModelFormat.GGUFQuantized, SubModelType.Tokenizer)
    ids = stored(TEXT)["input_ids"]
    assert stored.decode(ids) == TEXT
    assert stored.convert_tokens_to_ids("fox") in ids
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids[-1] == stored.eos_token_id


def test_incomplete_files_are_named(qwen3: tuple[Any, Any], gguf_file: Path, tmp_path: Path) -> None:
    tensors = dict(qwen3[1].model.state_dict())
    del tensors["layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "qwen3.safetensors")
    with pytest.raises(ValueError, match=r"incomplete Qwen3 encoder \(layers.1.mlp.up_proj.weight is missing\)"):
        load(tmp_path / "qwen3.safetensors", ModelFormat.Checkpoint)
    with pytest.raises(ValueError, match="comes without a tokenizer"):
        load(tmp_path / "qwen3.safetensors", ModelFormat.Checkpoint, SubModelType.Tokenizer)
    write_gguf(tmp_path / "bare.gguf", {"token_embd.weight": torch.zeros(2, 2)}, "F32")
    with pytest.raises(ValueError, match=r"bare.gguf comes without the tokenizer of Qwen3"):
        load(tmp_path / "bare.gguf", ModelFormat.GGUFQuantized, SubModelType.Tokenizer)


def test_files_without_a_tokenizer_use_an_installed_one(model_cache: ModelCache, tmp_path: Path) -> None:
    context = context_with(model_cache)

    def add(name: str, form: ModelFormat, kind: ModelType = ModelType.Qwen3Encoder) -> Any:
        base = BaseModelType.Any if kind is ModelType.Qwen3Encoder else BaseModelType.ZImage
        (tmp_path / name / "tokenizer").mkdir(parents=True)
        return context.models.add(tmp_path / name, base, kind, form)

    file = add("file", ModelFormat.Checkpoint)
    with pytest.raises(ValueError, match="file comes without a tokenizer: also install a Qwen3 encoder"):
        tokenizer_source(context, file, [])
    main = add("main", ModelFormat.Diffusers, ModelType.Main)
    assert tokenizer_source(context, file, []) == main
    folder = add("folder", ModelFormat.Qwen3Encoder)
    assert tokenizer_source(context, file, []) == folder
    assert tokenizer_source(context, file, [main]) == main
    assert tokenizer_source(context, folder, [main]) == folder
