"""Loading of CLIP encoders as transformers objects, and of the packaged tokenizer."""

import gzip
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from invokeclone.components.clip import open_clip
from invokeclone.engine.loading.files import load_folder, read_json, read_tensors
from invokeclone.engine.loading.folders import load_plain
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import ClipVariantType, ModelFormat, ModelType, SubModelType

_MERGES = Path(__file__).parent / "tokenizer" / "merges.txt.gz"
"""Its license is in NOTICE.md beside it."""
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_MAX_REASON = 300
_EMBED_PARTS = (SubModelType.Tokenizer, SubModelType.TextEncoder)


@loads(type=ModelType.CLIPVision, format=ModelFormat.Diffusers)
def load_vision(request: LoadRequest) -> Any:
    """Return the image encoder of a folder, which may also contain a text encoder."""
    from transformers import CLIPVisionModelWithProjection

    variant = getattr(request.config, "repo_variant", None)
    return load_folder(request.path, CLIPVisionModelWithProjection, request.dtype, variant)


@loads(type=ModelType.SigLIP, format=ModelFormat.Diffusers)
def load_siglip(request: LoadRequest) -> Any:
    """Return the image encoder of a folder, which may also contain a text encoder, with its image processor."""
    from transformers import SiglipImageProcessor, SiglipVisionModel

    variant = getattr(request.config, "repo_variant", None)
    model = load_folder(request.path, SiglipVisionModel, request.dtype, variant)
    if (request.path / "preprocessor_config.json").is_file():
        model.image_processor = load_plain(request.path, SiglipImageProcessor)
    else:
        side = model.config.image_size
        model.image_processor = SiglipImageProcessor(size={"height": side, "width": side})
    return model


@loads(type=ModelType.CLIPEmbed, format=ModelFormat.Diffusers)
def load_text_encoder(request: LoadRequest) -> Any:
    """Return the tokenizer or the text encoder of a folder, in the number format of its files.

    Each part has a folder of its own, or both are in the model's folder.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    if request.submodel not in _EMBED_PARTS:
        raise ValueError(f"{request.config.name}: CLIP text encoders have no part {request.submodel!r}")
    part_folder = request.path / str(request.submodel)
    folder = part_folder if part_folder.is_dir() else request.path
    if request.submodel == SubModelType.Tokenizer:
        return load_folder(folder, CLIPTokenizer, None)
    projects = request.config.variant == ClipVariantType.G
    cls = CLIPTextModelWithProjection if projects else CLIPTextModel
    return load_folder(folder, cls, None, getattr(request.config, "repo_variant", None))


def load_text_encoder_file(path: Path, dtype: torch.dtype, config: Path, prefix: str) -> Any:
    """Return the CLIPTextModel of a checkpoint whose tensor names begin with `prefix`.

    Sizes come from the tensors, everything else from the published config.json at `config`. Raises ValueError for a
    file without a text encoder.
    """
    from transformers import CLIPTextModel

    # CLIPTextModel has no module text_model, but the names in some files do
    stored = {n.removeprefix(prefix).removeprefix("text_model."): v for n, v in read_tensors(path, [prefix]).items()}
    with _reading(path, prefix):
        own_config = text_config(stored, read_json(config))
        with torch.device("meta"):
            model = CLIPTextModel(own_config)
        weights = {name: stored[name].to(dtype) for name in model.state_dict()}  # position ids are not learned
        return open_clip.fill(model, weights, dtype)


def load_open_clip_file(
    path: Path, dtype: torch.dtype, config: Path, prefix: str, *, projection: bool, unused_layers: int = 0
) -> Any:
    """Return the OpenCLIP text encoder of a checkpoint as a CLIPTextModel, or as one with projection.

    Sizes come from the tensors, everything else from the published config.json at `config`. `unused_layers` is the
    number of last OpenCLIP layers that the model was trained without; files may lack them. Raises ValueError for a
    file without a text encoder.
    """
    stored = {name.removeprefix(prefix): value for name, value in read_tensors(path, [prefix]).items()}
    with _reading(path, prefix):
        weights = open_clip.rename_weights(stored)
        own_config = text_config(weights, read_json(config), unused_layers)
        return open_clip.load(weights, own_config, projection=projection, dtype=dtype)


@contextmanager
def _reading(path: Path, prefix: str) -> Iterator[None]:
    """Raise ValueError with the file's name for tensors that are missing or have wrong sizes."""
    try:
        yield
    except KeyError as error:
        raise ValueError(
            f"{path.name} holds an incomplete text encoder ({prefix}{error.args[0]} is missing): "
            "select a complete file, or connect the text encoder of another model"
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
        raise ValueError(f"the text encoder in {path.name} cannot be used: {reason}") from error


def text_config(weights: Mapping[str, torch.Tensor], published: Mapping[str, Any], unused_layers: int = 0) -> Any:
    """Return the CLIPTextConfig of a text encoder with transformers' tensor names, without `text_model`."""
    from transformers import CLIPTextConfig

    vocabulary, width = weights["embeddings.token_embedding.weight"].shape
    layers = {match[1] for name in weights if (match := _LAYER.match(name))}
    head_width = published["hidden_size"] // published["num_attention_heads"]
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": weights["embeddings.position_embedding.weight"].shape[0],
        "num_hidden_layers": _count_layers(len(layers), published["num_hidden_layers"], unused_layers),
        "intermediate_size": weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": max(1, width // head_width),
    }
    if (projection := weights.get("text_projection.weight")) is not None:
        sizes["projection_dim"] = projection.shape[0]
    return CLIPTextConfig(**{**published, **sizes})


def _count_layers(stored: int, published: int, unused: int) -> int:
    """Return how many of a file's layers are used; unused ones may have been dropped when the file was saved."""
    return published if unused and stored in (published, published + unused) else max(stored - unused, 1)


def tokenizer(pad: str = "<|endoftext|>") -> Any:
    """Return CLIP's tokenizer, which pads prompts with `pad`: the end token for CLIP-L, "!" for OpenCLIP."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    letters = byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=pad)


def byte_letters() -> list[str]:
    """Return the characters that represent the 256 byte values, in the vocabulary's order: printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    remaining_count = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(remaining_count)]
