"""Qwen3 encoders from folders, and their hidden states."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from invokeclone.components.text_encoders.load import load_qwen3
from invokeclone.components.text_encoders.qwen3 import chat_text, encode_qwen3
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings
from tests.tiny_transformers import make_qwen3

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def qwen3() -> tuple[Any, Any]:
    return make_qwen3()


@pytest.fixture(scope="module")
def folder(qwen3: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with a folder for each part."""
    folder = tmp_path_factory.mktemp("qwen3")
    qwen3[0].save_pretrained(folder / "tokenizer")
    qwen3[1].save_pretrained(folder / "text_encoder")
    return folder


def load(folder: Path, part: SubModelType | None) -> Any:
    record = SimpleNamespace(name="qwen3")
    return load_qwen3(LoadRequest(record, folder, part, torch.float32, CPU, Settings(root=folder)))


def test_both_layouts_of_folders_load_without_the_output_layer(folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(folder / part, flat, dirs_exist_ok=True)
    for source in (folder, flat):
        encoder, tokenizer = (load(source, part) for part in (SubModelType.TextEncoder, SubModelType.Tokenizer))
        assert encoder.dtype == torch.bfloat16
        assert not hasattr(encoder, "lm_head")
        assert tokenizer("a<|im_end|>")["input_ids"][-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("thinking", [True, False])
def test_the_chat_equals_the_template(thinking: bool, qwen3: tuple[Any, Any]) -> None:
    tokenizer, _ = qwen3
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": " a fox\n"}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    assert chat_text(" a fox\n", thinking=thinking) == expected


def test_hidden_states_match_transformers(qwen3: tuple[Any, Any]) -> None:
    tokenizer, model = qwen3
    text = chat_text("a red fox", thinking=True)
    padded = tokenizer(text, padding="max_length", max_length=80, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**padded, output_hidden_states=True).hidden_states
    layers = (0, 1, -2, 30)
    states = encode_qwen3(tokenizer, model.model, text, layers, CPU, tokens=80, padded=True)
    short = encode_qwen3(tokenizer, model.model, text, layers, CPU, tokens=80)
    count = int(padded["attention_mask"].sum())
    for layer, state, unpadded in zip((0, 1, -2, -1), states, short, strict=True):
        torch.testing.assert_close(state, expected[layer])
        assert unpadded.shape == (1, count, 32)
        torch.testing.assert_close(unpadded, expected[layer][:, :count], atol=1e-5, rtol=1e-5)


def test_a_long_prompt_is_cut_and_logged(qwen3: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    tokenizer, model = qwen3
    (state,) = encode_qwen3(tokenizer, model.model, "abc " * 50, [-1], CPU, tokens=64)
    assert state.shape == (1, 64, 32)
    assert "longer than 64 tokens" in caplog.text


def test_a_missing_tokenizer_and_other_parts_are_rejected(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "text_encoder", tmp_path / "text_encoder")
    with pytest.raises(ValueError, match="has no tokenizer"):
        load(tmp_path, SubModelType.Tokenizer)
    with pytest.raises(ValueError, match="have no part"):
        load(folder, SubModelType.VAE)
