"""Single-file Stable Diffusion 1 checkpoints: each part's weights picked out of the file, its configuration from this folder.

Diffusers converts the names of the weights. Nothing is fetched: CLIP's vocabulary is here too (see checkpoint/tokenizer/NOTICE.md).
"""

import gzip
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "checkpoint"
UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."
_FIRST_WEIGHT = f"{UNET_PREFIX}input_blocks.0.0.weight"


def read(path: Path, prefixes: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint whose names begin with one of `prefixes`; only those are read from safetensors."""
    wanted = tuple(prefixes)
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(wanted)}  # noqa: SIM118
    stored = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    stored = stored.get("state_dict", stored)
    return {name: value for name, value in stored.items() if name.startswith(wanted)}


def unet(path: Path, dtype: torch.dtype, configs: Path = FOLDER) -> Any:
    """Return the UNet of a checkpoint; whether it is an inpainting model shows in its first weight."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    weights = read(path, [UNET_PREFIX])
    _need(weights, _FIRST_WEIGHT, path)
    return UNet2DConditionModel.from_single_file(
        weights,
        config=str(configs),
        subfolder="unet",
        in_channels=weights[_FIRST_WEIGHT].shape[1],
        torch_dtype=dtype,
        local_files_only=True,
    )


def vae(path: Path, dtype: torch.dtype, configs: Path = FOLDER) -> Any:
    """Return the autoencoder of a checkpoint, or of a file that holds nothing else."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    weights = read(path, [VAE_PREFIX, *parts])
    weights = {name.removeprefix(VAE_PREFIX): value for name, value in weights.items()}
    _need(weights, "decoder.conv_in.weight", path)
    return AutoencoderKL.from_single_file(
        weights, config=str(configs), subfolder="vae", torch_dtype=dtype, local_files_only=True
    )


def text_encoder(path: Path, dtype: torch.dtype, configs: Path = FOLDER, prefix: str = TEXT_PREFIX) -> Any:
    """Return the CLIP text encoder of a checkpoint, whose weights' names begin with `prefix`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(**json.loads((configs / "text_encoder" / "config.json").read_text(encoding="utf-8")))
    with torch.device("meta"):
        model = CLIPTextModel(config)
    expected = model.state_dict()
    weights: dict[str, torch.Tensor] = {}
    for name, value in read(path, [prefix]).items():
        short = name.removeprefix(prefix)
        fitting = short if short in expected else short.removeprefix("text_model.")
        if fitting in expected:  # position ids are counted, not learned
            weights[fitting] = value.to(dtype)
    _need(weights, next(iter(expected)), path)
    model.to_empty(device="cpu")
    model.to(dtype)
    model.load_state_dict(weights, assign=True, strict=True)
    _count_positions(model)
    return model.eval()


def _count_positions(model: torch.nn.Module) -> None:
    """Fill the buffer of position numbers, which `to_empty` left undefined."""
    for module in model.modules():
        if isinstance(positions := getattr(module, "position_ids", None), torch.Tensor):
            positions.copy_(torch.arange(positions.shape[-1]).expand_as(positions))


def tokenizer(pad: str = "<|endoftext|>") -> Any:
    """Return CLIP's tokenizer, which fills up short prompts with `pad`; Stable Diffusion 1 does so with the end's mark."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress((FOLDER / "tokenizer" / "merges.txt.gz").read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=pad)


def _byte_letters() -> list[str]:
    """Return the letters that stand for the 256 bytes, in the order of their numbers: printable ones first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(others)]


def _need(weights: dict[str, torch.Tensor], name: str, path: Path) -> None:
    if name not in weights:
        raise ValueError(f"{path.name} does not hold this part of a Stable Diffusion 1 model: {name} is missing")
