"""Tiny language models with random weights, as folders: one that writes, one that sees."""

from pathlib import Path

import torch

EXTRA = ("<image>",)


def write_tokenizer(folder: Path, *extra: str, chat_template: str | None = None) -> int:
    """Write a tokenizer that knows bytes; return how many tokens there are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", *extra, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return len(words)


def sizes(vocabulary: int) -> dict[str, float]:
    """Return a tiny language model's numbers; with weights this far from 0 what it writes depends on what it read."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 1,
        "initializer_range": 1.0,
    }


def write_text_llm(folder: Path, *, chat_template: str | None = None) -> Path:
    """Write a model that writes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = write_tokenizer(folder, chat_template=chat_template)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes(vocabulary))).save_pretrained(folder)
    return folder


def write_llava(folder: Path) -> Path:
    """Write a model that sees."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    vocabulary = write_tokenizer(folder, *EXTRA)
    grids = [[32, 32], [32, 64], [64, 32]]
    eye = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=eye,
        text_config=Qwen2Config(**sizes(vocabulary)),
        image_token_index=2,
        video_token_index=3,
        image_grid_pinpoints=grids,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grids).save_pretrained(
        folder
    )
    return folder
