"""T5 encoders from folders, and their embeddings."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from invokeclone.components.text_encoders.encode import encode_t5
from invokeclone.components.text_encoders.load import load_t5
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a T5 encoder of one layer in bfloat16 and a tokenizer of single letters."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
    )
    T5EncoderModel(config).to(torch.bfloat16).save_pretrained(folder / "text_encoder_2")
    words = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    T5TokenizerFast(vocab=[(word, -float(n)) for n, word in enumerate(words)], extra_ids=0).save_pretrained(
        folder / "tokenizer_2"
    )
    return folder


def request(folder: Path, part: SubModelType | None, tmp_path: Path) -> LoadRequest:
    settings = Settings(root=tmp_path)
    return LoadRequest(SimpleNamespace(name="t5"), folder, part, torch.float32, CPU, settings)


@pytest.fixture
def t5(t5_folder: Path, tmp_path: Path) -> tuple[Any, Any]:
    parts = (SubModelType.Tokenizer2, SubModelType.TextEncoder2)
    tokenizer, encoder = (load_t5(request(t5_folder, part, tmp_path)) for part in parts)
    return tokenizer, encoder


def test_the_encoder_keeps_the_number_format_of_its_files(t5: tuple[Any, Any]) -> None:
    assert t5[1].dtype == torch.bfloat16


def test_embeddings_are_padded_without_a_mask(t5: tuple[Any, Any]) -> None:
    tokenizer, encoder = t5
    embeds = encode_t5(tokenizer, encoder, "a red fox", 20, CPU)
    assert embeds.shape == (1, 20, 16)
    assert embeds.dtype == torch.bfloat16
    ids = tokenizer("a red fox")["input_ids"]
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * (20 - len(ids))])
    with torch.no_grad():
        assert torch.equal(embeds, encoder(padded).last_hidden_state)


def test_a_long_prompt_is_truncated_and_logged(t5: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    embeds = encode_t5(*t5, "abc " * 40, 20, CPU)
    assert embeds.shape == (1, 20, 16)
    assert "longer than 20 tokens" in caplog.text


def test_other_parts_are_rejected(t5_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part"):
        load_t5(request(t5_folder, SubModelType.VAE, tmp_path))
