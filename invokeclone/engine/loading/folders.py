"""Loading of model folders as diffusers and transformers objects from tensors and plain settings only.

The libraries also read other files of a folder: Python code, pickles, adapters, checkpoints of other tools, names of
kernels and models to fetch. They get a folder of links without any of those (`plain_view`). Torch's own files are read
by `torch_files`.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.loading import torch_files
from invokeclone.models.files.model_files import check_index, index_suffix

INDEX = "model_index.json"
_PLAIN = frozenset({".json", ".txt", ".model", ".jinja", ".safetensors"})
"""Suffixes of files with texts, settings and tensors; `.model` is a SentencePiece vocabulary."""
_LEFT_OUT = frozenset({INDEX, "adapter_config.json"})
"""Files that make the libraries look for other parts, or for the base model of an adapter."""
_DROPPED = ("auto_map", "custom_pipelines", "custom_pipeline", "transformers_weights", "trust_remote_code")
"""Settings that name code or other files to read, in any JSON file."""
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")
"""Settings that may name a kernel to fetch, as `owner/name`."""
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "tekken.json"})
"""Large JSON files without settings."""
_MAX_JSON_BYTES = 50_000_000
_QUANTIZATION = "quantization_config"
"""A setting that makes the libraries import what has quantized the weights."""
_BIN = re.compile(r"(?:diffusion_)?pytorch_model(?:\.(?P<variant>[a-z0-9_]+))?(?:-\d{5}-of-\d{5})?\.bin")


def load(folder: Path, cls: Any, dtype: torch.dtype | None, variant: str | None) -> Any:
    """Return a network, tokenizer, processor or sampler of `cls` from the folder it was saved to.

    Networks are in `dtype`; None keeps the number format of a transformers network's files. Reads the weight files of
    `variant` if there are any, otherwise the ones that exist, preferring safetensors. Quantized weights stay quantized.
    Raises InvalidModel for an index that names files outside the folder, and for damaged files.
    """
    if not (folder / "config.json").is_file():
        return load_plain(folder, cls)
    from invokeclone.engine.quantized import folders as quantized_folders

    if quantized_folders.is_quantized(folder):
        return quantized_folders.load(folder, cls, dtype)
    number_format = {"dtype" if _is_of(cls, "transformers") else "torch_dtype": dtype or "auto"}
    files, safe, file_variant = _weights(folder, variant)
    with plain_view(folder) as view:
        if safe or not files:
            return cls.from_pretrained(
                view, local_files_only=True, use_safetensors=True, variant=file_variant, **number_format
            ).eval()
        tensors: dict[str, torch.Tensor] = {}
        for file in files:
            tensors |= {
                name: value for name, value in torch_files.read(file).items() if isinstance(value, torch.Tensor)
            }
        return _from_tensors(view, cls, tensors, dtype).eval()


def load_plain(folder: Path, cls: Any) -> Any:
    """Return an object without weights: a tokenizer or an image processor."""
    with plain_view(folder) as view:
        return cls.from_pretrained(view, local_files_only=True)


def load_automatic(folder: Path, cls: Any, **options: Any) -> Any:
    """Return what a transformers Auto class creates from a folder, restricted to the library's own classes."""
    with plain_view(folder) as view:
        return cls.from_pretrained(
            view, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
        )


def build_empty(folder: Path, cls: Any) -> Any:
    """Return a network of `cls` by the config.json of a folder, on the meta device: without values.

    Buffers of transformers' networks that no file has are computed.
    """
    with plain_view(folder) as view:
        if not _is_of(cls, "transformers"):
            config = cls.load_config(view, local_files_only=True)
            with torch.device("meta"):
                return cls.from_config({name: value for name, value in config.items() if name != _QUANTIZATION})
        config = cls.config_class.from_pretrained(view, local_files_only=True)
    if hasattr(config, _QUANTIZATION):
        delattr(config, _QUANTIZATION)
    with torch.device("meta"):
        model = cls(config)
    for module in model.modules():
        names = [name for name in module._non_persistent_buffers_set if module._buffers[name] is not None]  # noqa: SLF001
        for name in names:
            setattr(module, name, torch.empty_like(getattr(module, name), device="cpu"))
        if names:
            model._init_weights(module)
    return model


@contextmanager
def plain_view(folder: Path) -> Iterator[Path]:
    """Yield a folder of links to `folder`'s settings, texts and safetensors, without references to code or other files.

    Raises InvalidModel for an index of weights that are not safetensors of this folder.
    """
    with tempfile.TemporaryDirectory(prefix="invokeclone-model-") as scratch:
        view = Path(scratch)
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() not in _PLAIN or file.name in _LEFT_OUT or not file.is_file():
                continue
            if file.suffix.lower() == ".json":
                _link_json(file, view / file.name)
            else:
                (view / file.name).symlink_to(file.resolve())
        yield view


def _link_json(file: Path, target: Path) -> None:
    """Link to a JSON file, or write a copy of it without the forbidden settings."""
    if file.name in _VOCABULARIES:
        target.symlink_to(file.resolve())
        return
    form = index_suffix(file.name)
    if form == ".bin":
        return
    if file.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{file.name} is too large for a settings file")
    if form is not None:
        check_index(file)
    text = file.read_bytes()
    if not any(name.encode() in text for name in (*_DROPPED, *_ATTENTION)) and b"\\u" not in text:
        target.symlink_to(file.resolve())
        return
    target.write_text(json.dumps(_sanitize(json.loads(text))), encoding="utf-8")


def _sanitize(value: Any) -> Any:
    if isinstance(value, list):
        return [_sanitize(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _sanitize(item) for name, item in value.items() if name not in _DROPPED and not _names_kernel(name, item)
    }


def _names_kernel(name: str, value: Any) -> bool:
    return name in _ATTENTION and "/" in json.dumps(value)


def _weights(folder: Path, variant: str | None) -> tuple[list[Path], bool, str | None]:
    """Return the torch files to read, whether to use safetensors instead, and the variant to read."""
    names = sorted(file.name for file in folder.iterdir())
    safe = any(name.endswith(".safetensors") for name in names)
    files = [name for name in names if name.endswith(".safetensors") or (not safe and _BIN.fullmatch(name))]
    variants = {name.split(".")[1].partition("-")[0] for name in files if name.count(".") > 1}
    plain = any(name.count(".") == 1 for name in files)
    file_variant = variant if variant in variants else None if plain or not variants else min(variants)
    if safe:
        return [], True, file_variant
    return [folder / name for name in files if _variant_of(name) == file_variant], False, file_variant


def _variant_of(name: str) -> str | None:
    match = _BIN.fullmatch(name)
    return match["variant"] if match else None


def _from_tensors(view: Path, cls: Any, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> Any:
    """Return a network with these tensors, all of which are required. Raises ValueError."""
    if _is_of(cls, "transformers"):
        config = cls.config_class.from_pretrained(view, local_files_only=True)
        return cls.from_pretrained(None, config=config, state_dict=dict(tensors), dtype=dtype or "auto")
    from accelerate import init_empty_weights

    with init_empty_weights():
        model = cls.from_config(cls.load_config(view, local_files_only=True))
    tensors = dict(tensors)
    model._fix_state_dict_keys_on_load(tensors)  # noqa: SLF001  (diffusers' own names of earlier versions)
    try:
        missing = model.load_state_dict(tensors, strict=False, assign=True).missing_keys
    except RuntimeError as error:
        raise ValueError(f"the weights do not match config.json: {error}") from error
    if missing:
        raise ValueError(f"the weights are incomplete: {missing[0]} is missing")
    return model if dtype is None else model.to(dtype)


def _is_of(cls: Any, library: str) -> bool:
    return str(cls.__module__).startswith(f"{library}.")
