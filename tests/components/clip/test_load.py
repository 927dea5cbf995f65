"""CLIP text encoders from single files, and the tokenizer that is a part of the package."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.clip import load
from invokeclone.families.stable_diffusion.single_files import SD1_TEXT_PREFIX
from tests.tiny_checkpoints import open_clip_weights, same_weights


def test_load_text_encoder_from_a_checkpoint(sd1_checkpoint: Path, sd1_configs: Path, sd1_parts: dict[str, Any]):
    config = sd1_configs / "text_encoder" / "config.json"
    encoder = load.load_text_encoder_file(sd1_checkpoint, torch.float32, config, SD1_TEXT_PREFIX)
    assert same_weights(encoder, sd1_parts["text_encoder"])
    tokens = torch.tensor([[512, 3, 4, 513]])
    with torch.inference_mode():
        assert torch.equal(encoder(tokens)[0], sd1_parts["text_encoder"](tokens)[0]), "positions are counted"


def test_a_file_without_a_text_encoder_is_refused(sd1_configs: Path, tmp_path: Path):
    save_file({"nothing": torch.zeros(1)}, tmp_path / "empty.safetensors")
    config = sd1_configs / "text_encoder" / "config.json"
    with pytest.raises(ValueError, match=r"empty\.safetensors holds an incomplete text encoder \(.* is missing"):
        load.load_text_encoder_file(tmp_path / "empty.safetensors", torch.float32, config, SD1_TEXT_PREFIX)


@pytest.mark.parametrize("projection", [False, True])
def test_load_open_clip_text_encoder(tmp_path: Path, projection: bool):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_attention_heads": 2, "projection_dim": 12}
    config = CLIPTextConfig(**sizes, vocab_size=50, num_hidden_layers=2, hidden_act="gelu")
    torch.manual_seed(1)
    encoder = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()
    config.save_pretrained(tmp_path)
    save_file(open_clip_weights(encoder, "x.model."), tmp_path / "tiny.safetensors")
    loaded = load.load_open_clip_file(
        tmp_path / "tiny.safetensors", torch.float32, tmp_path / "config.json", "x.model.", projection=projection
    )
    assert type(loaded) is type(encoder)
    assert same_weights(loaded, encoder)


def test_tokenizer_matches_clip():
    tokenizer = load.tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer.model_max_length == 77
    assert tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("", padding="max_length")["input_ids"] == [49406] + [49407] * 76
    assert load.tokenizer("!")("", padding="max_length")["input_ids"] == [49406, 49407] + [0] * 75
