"""CLIP text encoders and their tokenizer as transformers objects, from single files; the vocabulary is part of the package."""

import gzip
from pathlib import Path
from typing import Any

import torch

from invokeclone.components.clip import open_clip
from invokeclone.engine.files import load_folder, read_json, read_tensors
from invokeclone.engine.load_request import LoadRequest
from invokeclone.engine.loaders import loads
from invokeclone.graph.taxonomy import ModelFormat, ModelType

_MERGES = Path(__file__).parent / "tokenizer" / "merges.txt.gz"
"""See NOTICE.md beside it."""


@loads(type=ModelType.CLIPVision, format=ModelFormat.Diffusers)
def load_vision(request: LoadRequest) -> Any:
    """Return the image encoder of a folder, which may hold a text encoder too."""
    from transformers import CLIPVisionModelWithProjection

    variant = getattr(request.config, "repo_variant", None)
    return load_folder(request.path, CLIPVisionModelWithProjection, request.dtype, variant)


def load_text_encoder_file(path: Path, dtype: torch.dtype, config: Path, prefix: str) -> Any:
    """Return the CLIPTextModel of a checkpoint whose tensors' names begin with `prefix`; `config` is its config.json.

    Raises ValueError for a file without one.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**read_json(config)))
    expected = model.state_dict()
    weights: dict[str, torch.Tensor] = {}
    for name, value in read_tensors(path, [prefix]).items():
        short = name.removeprefix(prefix)
        known = short if short in expected else short.removeprefix("text_model.")
        if known in expected:  # position ids are counted, not learned
            weights[known] = value.to(dtype)
    if missing := next((name for name in expected if name not in weights), None):
        raise ValueError(f"{path.name} holds no complete text encoder: {prefix}{missing} is missing")
    return open_clip.fill(model, weights, dtype)


def load_open_clip_file(path: Path, dtype: torch.dtype, config: Path, prefix: str, *, projection: bool) -> Any:
    """Return the OpenCLIP text encoder of a checkpoint as a CLIPTextModel, or as one with projection."""
    from transformers import CLIPTextConfig

    weights = {name.removeprefix(prefix): value for name, value in read_tensors(path, [prefix]).items()}
    return open_clip.load(weights, CLIPTextConfig(**read_json(config)), projection=projection, dtype=dtype)


def tokenizer(pad: str = "<|endoftext|>") -> Any:
    """Return CLIP's tokenizer, which pads prompts with `pad`: CLIP-L's is the end's mark, OpenCLIP's "!"."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    letters = byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=pad)


def byte_letters() -> list[str]:
    """Return the letters that stand for the 256 bytes, in the order of their numbers: printable ones first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(others)]
