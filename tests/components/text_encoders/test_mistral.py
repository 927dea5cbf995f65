"""Mistral encoders from folders and files: same hidden states as diffusers' pipeline; tokenizers in each form."""

import base64
import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invokeclone.components.text_encoders import load, mistral
from invokeclone.components.text_encoders.names import BLOCK_NAMES
from invokeclone.components.text_encoders.tokenizer_sources import tokenizer_source
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.quantized.packed import PackedLinear
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    Flux2VariantType,
    ModelFormat,
    ModelType,
    SubModelType,
)
from invokeclone.kit.config.settings import Settings
from tests.quantized_files import write_gguf
from tests.tiny_transformers import context_with, make_mistral, make_mistral_tokenizer

CPU = torch.device("cpu")
SYSTEM = "Describe images."
TEXT = mistral.instruction_text(SYSTEM, "a red fox")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_mistral_tokenizer()


@pytest.fixture(scope="module")
def model() -> Any:
    model = make_mistral().to(torch.bfloat16)
    language_model = model.model.language_model
    language_model.rotary_emb = type(language_model.rotary_emb)(config=language_model.config)  # its buffer is float32
    return model


@pytest.fixture(scope="module")
def folder(tokenizer: Any, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with a folder for each part."""
    folder = tmp_path_factory.mktemp("mistral")
    tokenizer.save_pretrained(folder / "tokenizer")
    model.save_pretrained(folder / "text_encoder")
    return folder


def request(path: Path, form: ModelFormat, part: SubModelType | None) -> LoadRequest:
    record = SimpleNamespace(name="mistral", format=form)
    return LoadRequest(record, path, part, torch.float32, CPU, Settings(root=path.parent))


def from_folder(folder: Path, part: SubModelType | None = SubModelType.TextEncoder) -> Any:
    return load.load_mistral(request(folder, ModelFormat.MistralEncoder, part))


def from_file(path: Path, part: SubModelType = SubModelType.TextEncoder) -> Any:
    form = ModelFormat.GGUFQuantized if path.suffix == ".gguf" else ModelFormat.Checkpoint
    return load.load_mistral_file(request(path, form, part))


def states(tokenizer: Any, encoder: Any, tokens: int = 64) -> torch.Tensor:
    return torch.cat(mistral.encode_mistral(tokenizer, encoder, TEXT, CPU, tokens=tokens), dim=-1)


@pytest.fixture(scope="module")
def reference(tokenizer: Any, folder: Path) -> torch.Tensor:
    return states(tokenizer, from_folder(folder))


def expected(tokenizer: Any, model: Any, prompt: str, tokens: int) -> torch.Tensor:
    """Return the embeddings of diffusers' pipeline."""
    from diffusers import Flux2Pipeline

    with torch.inference_mode():
        result: torch.Tensor = Flux2Pipeline._get_mistral_3_small_prompt_embeds(
            model, tokenizer, prompt, max_sequence_length=tokens, system_message=SYSTEM
        )
    return result


@pytest.mark.parametrize("prompt", ["", "a red fox [IMG]", "abc " * 40])
def test_hidden_states_match_diffusers(prompt: str, tokenizer: Any, model: Any, folder: Path) -> None:
    encoder = from_folder(folder)
    assert (encoder.dtype, len(encoder.layers)) == (torch.bfloat16, 30)
    assert not hasattr(encoder, "vision_tower")
    text = mistral.instruction_text(SYSTEM, prompt)
    result = torch.cat(mistral.encode_mistral(tokenizer, encoder, text, CPU, tokens=80), dim=-1)
    assert result.shape == (1, 80, 96)
    assert torch.equal(result, expected(tokenizer, model, prompt, 80))


def test_every_layout_of_folders_loads(
    tokenizer: Any, folder: Path, model: Any, reference: torch.Tensor, tmp_path: Path
) -> None:
    flat, language_model = tmp_path / "flat", tmp_path / "language model"
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(folder / part, flat, dirs_exist_ok=True)
    model.model.language_model.save_pretrained(language_model / "text_encoder")
    renamed = tmp_path / "renamed"
    shutil.copytree(folder / "text_encoder", renamed)
    stored = load_file(renamed / "model.safetensors")
    names = {name: name.replace("language_model.model.", "model.language_model.") for name in stored}
    save_file({names[name]: value for name, value in stored.items()}, renamed / "model.safetensors", {"format": "pt"})
    (flat / "consolidated.safetensors").write_bytes(b"the same weights by Mistral's own names")
    for source in (flat, language_model, renamed):
        assert torch.equal(states(tokenizer, from_folder(source)), reference), source.name
    assert from_folder(flat, SubModelType.Tokenizer)(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    with pytest.raises(ValueError, match="has no tokenizer"):
        from_folder(language_model, SubModelType.Tokenizer)
    with pytest.raises(ValueError, match="Mistral encoders have no part"):
        from_folder(folder, SubModelType.VAE)
    with pytest.raises(ValueError, match="has no safetensors files of a Mistral encoder"):
        from_folder(folder / "tokenizer")


def tensors_of(model: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in model.model.language_model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "text_encoder.model."])
def test_a_file_equals_the_folder(
    prefix: str, tokenizer: Any, model: Any, reference: torch.Tensor, tmp_path: Path
) -> None:
    save_file(tensors_of(model, prefix) | {"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    encoder = from_file(tmp_path / "a.safetensors")
    assert encoder.config.rope_parameters["rope_theta"] == 1e9
    assert (encoder.config.rms_norm_eps, encoder.config.num_key_value_heads) == (1e-5, 1)
    assert torch.equal(states(tokenizer, encoder), reference)


def test_the_last_state_of_an_encoder_of_30_layers_has_no_norm(
    tokenizer: Any, model: Any, reference: torch.Tensor, tmp_path: Path
) -> None:
    short = {name: value for name, value in tensors_of(model).items() if not name.startswith(("layers.30.", "norm."))}
    save_file(short, tmp_path / "cow.safetensors")
    assert torch.equal(states(tokenizer, from_file(tmp_path / "cow.safetensors")), reference)


def in_float8(tensors: dict[str, torch.Tensor], ending: str) -> dict[str, torch.Tensor]:
    """Return tensors with the matrices of layers in 8-bit floats, with a scale each."""
    stored: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if value.ndim == 2 and "layers" in name:
            scale = value.float().abs().max() / 448
            stored[name] = (value.float() / scale).to(torch.float8_e4m3fn)
            stored[name.replace(".weight", ending)] = scale
        else:
            stored[name] = value
    return stored


@pytest.mark.parametrize("ending", [".weight_scale", ".scale_weight"])
def test_a_file_in_float8_with_scales_stays_packed(
    ending: str, tokenizer: Any, model: Any, reference: torch.Tensor, tmp_path: Path
) -> None:
    stored = in_float8(tensors_of(model, "model."), ending)
    marks = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    marks["tekken_model"] = torch.tensor(list(tekken(tokenizer)), dtype=torch.uint8)
    save_file(stored | marks, tmp_path / "a.safetensors")
    encoder = from_file(tmp_path / "a.safetensors")
    assert isinstance(encoder.layers[0].self_attn.q_proj, PackedLinear)
    difference = (states(tokenizer, encoder) - reference).abs().mean()
    assert 0 < difference < 0.1 * reference.abs().mean()


def test_a_folder_has_matrices_and_scales_in_different_files(
    tokenizer: Any, model: Any, folder: Path, reference: torch.Tensor, tmp_path: Path
) -> None:
    """Its settings are in config.json; without the scales, the values are wrong by a factor."""
    stored = in_float8(load_file(folder / "text_encoder" / "model.safetensors"), ".weight_scale")
    scales = {name: value for name, value in stored.items() if name.endswith("_scale")}
    others = {name: value for name, value in stored.items() if name not in scales}
    for number, tensors in enumerate((others, scales)):
        save_file(tensors, tmp_path / f"model-0000{number + 1}-of-00002.safetensors")
    config = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    encoder = from_folder(tmp_path)
    assert isinstance(encoder.layers[0].self_attn.q_proj, PackedLinear)
    difference = (states(tokenizer, encoder) - reference).abs().mean()
    assert 0 < difference < 0.1 * reference.abs().mean()
    config["quantization_config"] = {"quant_method": "gptq"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="is quantized by gptq, which cannot be decoded"):
        from_folder(tmp_path)


def llama_names(model: Any, heads: dict[str, int]) -> dict[str, torch.Tensor]:
    """Return the tensors with llama.cpp's names, and its order of the rows of queries and keys."""
    names = {module: name for name, module in BLOCK_NAMES.items()}
    stored = {}
    for name, value in tensors_of(model).items():
        if name.startswith("layers."):
            _, number, layer = name.removesuffix(".weight").split(".", 2)
            count, short = heads.get(names[layer], 0), f"blk.{number}.{names[layer]}.weight"
            halves = value.reshape(count, 2, -1, value.shape[1]).swapaxes(1, 2) if count else value
            stored[short] = halves.reshape(value.shape)
        else:
            outer = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
            stored[outer[name]] = value
    return stored


def vocabulary(tokenizer: Any) -> dict[str, list[Any]]:
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    tokens[200:203] = ["re", "fo", "fox"]  # in place of bytes that the text does not have
    types = [3 if number < 14 else 1 for number in range(len(tokens))]
    lists = {"tokens": tokens, "merges": ["r e", "f o", "fo x"], "token_type": types}
    return {f"tokenizer.ggml.{name}": values for name, values in lists.items()}


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "Q8_0"), ("llama", "F32"), ("flux", "F32")])
def test_a_gguf_file_has_the_rows_in_order(
    architecture: str, kind: str, tokenizer: Any, model: Any, reference: torch.Tensor, tmp_path: Path
) -> None:
    heads = {"attn_q": 2, "attn_k": 1} if architecture == "llama" else {}
    write_gguf(tmp_path / "a.gguf", llama_names(model, heads), kind, vocabulary(tokenizer), architecture)
    encoder = from_file(tmp_path / "a.gguf")
    assert isinstance(encoder.layers[0].self_attn.q_proj, PackedLinear) == (kind == "Q8_0")
    difference = (states(tokenizer, encoder) - reference).abs().mean()
    assert difference <= (0.05 if kind == "Q8_0" else 0.0) * reference.abs().mean()


def test_the_base_of_the_rotation_is_read_from_the_file(model: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", llama_names(model, {}), "F32", {"llama.rope.freq_base": 1e6}, "llama")
    assert from_file(tmp_path / "a.gguf").config.rope_parameters["rope_theta"] == 1e6


def tekken(tokenizer: Any) -> bytes:
    """Return Mistral's own form of the tokenizer, with three words."""
    words = [bytes([number]) for number in range(256)] + [b"fo", b"fox", b"re"]
    special = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])[:14]
    content = {
        "config": {
            "pattern": r"\p{L}+|\s+|[^\p{L}\s]+",
            "default_vocab_size": 14 + len(words),
            "default_num_special_tokens": 14,
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(word).decode(), "token_str": None}
            for rank, word in enumerate(words)
        ],
        "special_tokens": [{"rank": rank, "token_str": token, "is_control": True} for token, rank in special],
    }
    return json.dumps(content).encode()


def record_call(calls: list[dict[str, Any]], **inputs: Any) -> Any:
    calls.append(inputs)
    return SimpleNamespace(hidden_states=[torch.zeros(1)] * 31)


def test_tokenizers_in_each_form(tokenizer: Any, tmp_path: Path) -> None:
    stored = torch.tensor(list(tekken(tokenizer)), dtype=torch.uint8)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/tekken.json").write_bytes(tekken(tokenizer))
    save_file({"tekken_model": stored}, tmp_path / "a.safetensors")
    write_gguf(tmp_path / "a.gguf", {"tekken_model": stored, "token_embd.weight": torch.zeros(2, 2)}, "F32")
    write_gguf(tmp_path / "b.gguf", {"token_embd.weight": torch.zeros(2, 2)}, "F32", vocabulary(tokenizer))
    part = SubModelType.Tokenizer
    loaded = [from_folder(tmp_path / "folder", part)]
    loaded += [from_file(tmp_path / name, part) for name in ("a.safetensors", "a.gguf", "b.gguf")]
    for each in loaded:
        ids = each(TEXT, add_special_tokens=False)["input_ids"]
        assert each.decode(ids) == TEXT
        assert ids[0] == tokenizer.convert_tokens_to_ids("[SYSTEM_PROMPT]")
        assert ids[-1] == tokenizer.convert_tokens_to_ids("[/INST]")
        assert each.convert_tokens_to_ids("fox") in ids
        calls: list[dict[str, Any]] = []
        mistral.encode_mistral(each, partial(record_call, calls), TEXT, CPU, tokens=len(ids) + 3)
        assert calls[0]["input_ids"].tolist() == [[11, 11, 1, *ids]], "two of padding, and the beginning of a text"
        assert calls[0]["attention_mask"].tolist() == [[0, 0, *[1] * (len(ids) + 1)]]
    save_file({"a": stored}, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"none.safetensors comes without the tokenizer of Mistral"):
        from_file(tmp_path / "none.safetensors", part)
    save_file({"tekken_model": stored[:40]}, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"the tokenizer in cut.safetensors cannot be read: use a Mistral encoder"):
        from_file(tmp_path / "cut.safetensors", part)


def test_an_incomplete_file_is_named(model: Any, tmp_path: Path) -> None:
    tensors = tensors_of(model)
    del tensors["layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"incomplete Mistral encoder \(layers.1.mlp.up_proj.weight is missing\)"):
        from_file(tmp_path / "a.safetensors")
    write_gguf(tmp_path / "a.gguf", llama_names(model, {}), "F32", {"llama.attention.key_length": 0.0}, "llama")
    with pytest.raises(ValueError, match=r"a.gguf holds an incomplete Mistral encoder, download it again"):
        from_file(tmp_path / "a.gguf")


def test_files_without_a_tokenizer_use_an_installed_one(model_cache: ModelCache, tmp_path: Path) -> None:
    context = context_with(model_cache)

    def add(name: str, form: ModelFormat, kind: ModelType = ModelType.MistralEncoder, **fields: Any) -> Any:
        base = BaseModelType.Any if kind is ModelType.MistralEncoder else BaseModelType.Flux2
        return context.models.add(tmp_path / name, base, kind, form, **fields)

    for name, tensor in (("bare", "a"), ("whole", "tekken_model")):
        save_file({tensor: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    bare = add("bare.safetensors", ModelFormat.Checkpoint)
    klein = add("klein", ModelFormat.Diffusers, ModelType.Main, variant=Flux2VariantType.Klein4B)
    with pytest.raises(ValueError, match=r"bare.safetensors comes without a tokenizer: also install a Mistral encoder"):
        tokenizer_source(context, bare, [])
    dev = add("dev", ModelFormat.Diffusers, ModelType.Main, variant=Flux2VariantType.Dev)
    assert tokenizer_source(context, bare, []) == dev
    whole = add("whole.safetensors", ModelFormat.Checkpoint)
    assert tokenizer_source(context, whole, []) == whole
    assert tokenizer_source(context, bare, []) == whole
    (tmp_path / "dev/tokenizer").mkdir(parents=True)
    assert tokenizer_source(context, bare, [klein, dev]) == dev
