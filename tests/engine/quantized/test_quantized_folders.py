"""Folders with quantized weights: names of other versions, buffers that no file has, what cannot be loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.quantized import folders
from invokeclone.engine.quantized.packed import PackedLinear
from tests.quantized_forms import FLOAT8, INT8, SCALED, SDNQ, quantize
from tests.tiny_transformers import make_cogview4_parts, make_qwen3


def saved(model: Any, folder: Path, form: str, settings: dict[str, Any] | None = None) -> Path:
    """Save a network in a form, with settings in a file of their own."""
    model.save_pretrained(folder)
    (file,) = folder.glob("*.safetensors")
    save_file(quantize(form, load_file(file)), file)
    if settings:
        (folder / "quantization_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_plain_folders_are_loaded_by_their_libraries(tmp_path: Path) -> None:
    make_qwen3()[1].save_pretrained(tmp_path)
    assert not folders.is_quantized(tmp_path)
    assert folders.is_quantized(saved(make_qwen3()[1], tmp_path / "q", FLOAT8))


@pytest.mark.parametrize("form", [FLOAT8, SDNQ])
def test_clip_has_its_positions(form: str, sd1_parts: dict[str, Any], tmp_path: Path) -> None:
    """Files have `text_model` in each name, and no position ids."""
    from transformers import CLIPTextModel

    original = sd1_parts["text_encoder"]
    settings = {"quant_method": "sdnq", "weights_dtype": "uint4"} if form == SDNQ else None
    folder = saved(original, tmp_path, form, settings)
    stored = load_file(folder / "model.safetensors")
    save_file({f"text_model.{name}": value for name, value in stored.items()}, folder / "model.safetensors")
    loaded = load_folder(folder, CLIPTextModel, torch.float32)
    assert isinstance(loaded.encoder.layers[0].self_attn.q_proj, PackedLinear)
    ids = torch.tensor([[1, 5, 7, 2]])
    with torch.inference_mode():
        result, expected = (model(ids).last_hidden_state for model in (loaded, original))
    assert (result - expected).norm() / expected.norm() < (0.3 if form == SDNQ else 0.1)
    assert torch.equal(loaded.embeddings.position_ids, original.embeddings.position_ids)


def test_an_encoder_in_a_language_model_computes_its_rotations(tmp_path: Path) -> None:
    from transformers import GlmModel, Qwen3Model

    qwen3 = make_qwen3(64)[1]
    loaded = load_folder(saved(qwen3, tmp_path / "qwen3", SCALED), Qwen3Model, None)
    assert loaded.dtype == torch.float32  # that of the norms
    assert torch.equal(loaded.rotary_emb.inv_freq, qwen3.model.rotary_emb.inv_freq)
    glm = make_cogview4_parts()["text_encoder"]
    loaded = load_folder(saved(glm, tmp_path / "glm", INT8, {"quant_method": "bitsandbytes"}), GlmModel, torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded.rotary_emb.inv_freq, glm.rotary_emb.inv_freq)


def test_files_of_a_variant_are_not_mixed_with_the_others(tmp_path: Path) -> None:
    from transformers import Qwen3Model

    folder = saved(make_qwen3(64)[1], tmp_path, SCALED)
    (folder / "model.fp16.safetensors").write_bytes(b"not read")
    assert isinstance(load_folder(folder, Qwen3Model, None).layers[0].mlp.up_proj, PackedLinear)


def test_other_methods_and_incomplete_weights_are_named(tmp_path: Path) -> None:
    from transformers import Qwen3Model

    folder = saved(make_qwen3(64)[1], tmp_path / "tiny" / "text_encoder", FLOAT8, {"quant_method": "gptq"})
    with pytest.raises(
        ValueError, match="tiny/text_encoder is quantized by gptq, which cannot be decoded: use a model"
    ):
        load_folder(folder, Qwen3Model, torch.float32)
    (folder / "quantization_config.json").write_text('{"quant_method": "sdnq", "use_codebook": true}', encoding="utf-8")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"are incomplete \(layers\.1\.mlp\.up_proj\.weight is missing\)"):
        load_folder(folder, Qwen3Model, torch.float32)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"(?s)do not match config\.json: .*up_proj"):
        load_folder(folder, Qwen3Model, torch.float32)
