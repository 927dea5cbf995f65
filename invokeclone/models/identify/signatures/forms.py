"""Checks of the on-disk form of models: the class of folders, the storage format of single files."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from invokeclone.graph.vocabulary.taxonomy import ModelFormat, ModelRepoVariant, ModelType, SubModelType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.files.model_files import WEIGHTS, ModelFiles
from invokeclone.models.identify.rules import Mismatch, require

V = TypeVar("V")

COMFY_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.")
"""Prefixes of denoiser tensor names in files saved by other user interfaces."""

_FOUR_BITS = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")


def is_folder_of(*classes: str) -> Callable[[ModelFiles], None]:
    """Return a check for a folder whose class is one of `classes`."""

    def recognizes(model: ModelFiles) -> None:
        require(model.is_folder, "it is not a folder")
        require(model.class_name in classes, f"its class is {model.class_name}")

    return recognizes


def is_pipeline_of(*classes: str, sdnq: bool = False) -> Callable[[ModelFiles], None]:
    """Return a check for a pipeline of one of `classes`, with a transformer quantized by SDNQ if `sdnq`, else not."""
    is_of_class = is_folder_of(*classes)

    def recognizes(model: ModelFiles) -> None:
        is_of_class(model)
        require(is_quantized_folder(model, "transformer") == sdnq, f"quantized by SDNQ: {not sdnq}")

    return recognizes


def is_file_stored_as(form: ModelFormat) -> Callable[[ModelFiles], None]:
    """Return a check for a single file whose weights are stored as `form`."""

    def recognizes(model: ModelFiles) -> None:
        require(not model.is_folder, "it is a folder")
        require(storage(model) == form, f"its weights are stored as {storage(model)}")

    return recognizes


def is_file_of(form: ModelFormat, check: Callable[[ModelFiles], None]) -> Callable[[ModelFiles], None]:
    """Return a check for a single file stored as `form` that passes `check` too."""
    is_stored = is_file_stored_as(form)

    def recognizes(model: ModelFiles) -> None:
        is_stored(model)
        check(model)

    return recognizes


def is_four_bit_file_of(check: Callable[[ModelFiles], None]) -> Callable[[ModelFiles], bool]:
    """Return a check whether a file that passes `check` is stored in bitsandbytes' 4 bits."""
    recognizes = is_file_of(ModelFormat.BnbQuantizednf4b, check)

    def passes(model: ModelFiles) -> bool:
        try:
            recognizes(model)
        except Mismatch:
            return False
        return True

    return passes


def settings_of(
    variant: Callable[[ModelFiles], V], settings: Mapping[V, MainModelDefaultSettings]
) -> Callable[[ModelFiles], MainModelDefaultSettings | None]:
    """Return a detector that looks up default settings by the model's variant."""
    return lambda model: settings.get(variant(model))


def storage(model: ModelFiles) -> ModelFormat:
    """Return the storage format of a single file's weights."""
    return model.memoize(_storage)


def _storage(model: ModelFiles) -> ModelFormat:
    if model.path.suffix.lower() == ".gguf":
        return ModelFormat.GGUFQuantized
    if any(name.endswith(_FOUR_BITS) for name in model.tensors):
        return ModelFormat.BnbQuantizednf4b
    return ModelFormat.SDNQQuantized if _has_sdnq_scales(model) else ModelFormat.Checkpoint


def _has_sdnq_scales(model: ModelFiles) -> bool:
    stems = (name.removesuffix(".weight") for name in model.tensors if name.endswith(".weight"))
    return any(f"{stem}.scale" in model.tensors for stem in stems)


def is_quantized_folder(model: ModelFiles, part: str = "") -> bool:
    """Return whether the weights of a folder, or of its subfolder `part` if it exists, are quantized by SDNQ."""
    folder = model.child(part) if part and model.child(part).is_folder else model
    quantization = folder.json("config.json").get("quantization_config")
    if isinstance(quantization, dict) and "sdnq" in str(quantization.get("quant_method", "")).lower():
        return True
    weights = (file for file in folder.files if file.parent == folder.path and file.suffix == ".safetensors")
    first = next(weights, None)
    return first is not None and _has_sdnq_scales(folder.child(first.name))


def tensor_names(folder: ModelFiles) -> set[str]:
    """Return the names of the tensors in the weight files directly in a folder."""
    weights = [file for file in folder.files if file.parent == folder.path and file.suffix.lower() in WEIGHTS]
    safetensors = [file for file in weights if file.suffix.lower() == ".safetensors"]
    return {name for file in safetensors or weights for name in folder.child(file.name).tensors}


def part_config(model: ModelFiles, part: str) -> dict[str, Any]:
    """Return the configuration of a pipeline's part, or of the folder itself if it is that part."""
    return model.json(f"{part}/config.json") or model.json("config.json")


def number(config: dict[str, Any], *names: str) -> int | None:
    """Return the first of the fields `names` that is an integer."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def has_word(model: ModelFiles, *words: str) -> bool:
    """Return whether the model's name contains one of `words` as a whole word, delimited by non-alphanumerics."""
    return bool(set(re.split(r"[^a-z0-9]+", model.name.lower())) & set(words))


def repo_variant(model: ModelFiles) -> ModelRepoVariant:
    """Return the variant of the weights in a folder."""
    names = [file.name for file in model.files]
    if any(".fp16." in name for name in names):
        return ModelRepoVariant.FP16
    if "openvino_model.xml" in names:
        return ModelRepoVariant.OpenVINO
    if any(name.endswith(".onnx") for name in names):
        return ModelRepoVariant.ONNX
    if "flax_model.msgpack" in names:
        return ModelRepoVariant.Flax
    return ModelRepoVariant.Default


_PARTS = {"CLIPText": ModelType.CLIPEmbed, "T5Encoder": ModelType.T5Encoder, "Autoencoder": ModelType.VAE}


def submodels(model: ModelFiles) -> dict[SubModelType, dict[str, Any]] | None:
    """Return the parts of a pipeline that have weights, by their names in model_index.json."""
    definitions: dict[SubModelType, dict[str, Any]] = {}
    for name, value in model.json("model_index.json").items():
        if name in set(SubModelType) and isinstance(value, list) and value:
            kind = next((kind for prefix, kind in _PARTS.items() if str(value[-1]).startswith(prefix)), None)
            kind = kind or (ModelType.Main if name.startswith("transformer") else None)
            if kind:
                definitions[SubModelType(name)] = {"path_or_prefix": name, "model_type": kind}
    return definitions or None
