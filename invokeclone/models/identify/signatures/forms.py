"""Forms on disk: folders by their class, single files by how their weights are stored. It knows no kind of model."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from invokeclone.graph.vocabulary.taxonomy import ModelFormat, ModelRepoVariant, ModelType, SubModelType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import require

V = TypeVar("V")

COMFY_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.")
"""What user interfaces put before the names of a denoiser's tensors."""

_NF4 = "quant_state.bitsandbytes__nf4"


def is_folder_of(*classes: str) -> Callable[[ModelFiles], None]:
    """Return the test for a folder whose class is one of `classes`."""

    def recognizes(model: ModelFiles) -> None:
        require(model.is_folder, "it is not a folder")
        require(model.class_name in classes, f"its class is {model.class_name}")

    return recognizes


def is_pipeline_of(*classes: str, sdnq: bool = False) -> Callable[[ModelFiles], None]:
    """Return the same for main models, whose transformer is quantized by SDNQ or not as `sdnq` says."""
    is_of_class = is_folder_of(*classes)

    def recognizes(model: ModelFiles) -> None:
        is_of_class(model)
        require(is_quantized_folder(model, "transformer") == sdnq, f"quantized by SDNQ: {not sdnq}")

    return recognizes


def is_file_stored_as(form: ModelFormat) -> Callable[[ModelFiles], None]:
    """Return the test for a single file whose weights are stored as `form`."""

    def recognizes(model: ModelFiles) -> None:
        require(not model.is_folder, "it is a folder")
        require(storage(model) == form, f"its weights are stored as {storage(model)}")

    return recognizes


def is_file_of(form: ModelFormat, check: Callable[[ModelFiles], None]) -> Callable[[ModelFiles], None]:
    """Return the test for a single file stored as `form` that passes `check` too."""
    is_stored = is_file_stored_as(form)

    def recognizes(model: ModelFiles) -> None:
        is_stored(model)
        check(model)

    return recognizes


def settings_of(
    variant: Callable[[ModelFiles], V], settings: Mapping[V, MainModelDefaultSettings]
) -> Callable[[ModelFiles], MainModelDefaultSettings | None]:
    """Return what finds a model's settings in a table by its variant."""
    return lambda model: settings.get(variant(model))


def storage(model: ModelFiles) -> ModelFormat:
    """Return how a single file's weights are stored."""
    if model.path.suffix.lower() == ".gguf":
        return ModelFormat.GGUFQuantized
    if any(name.endswith(_NF4) for name in model.tensors):
        return ModelFormat.BnbQuantizednf4b
    return ModelFormat.SDNQQuantized if _has_sdnq_scales(model) else ModelFormat.Checkpoint


def _has_sdnq_scales(model: ModelFiles) -> bool:
    stems = (name.removesuffix(".weight") for name in model.tensors if name.endswith(".weight"))
    return any(f"{stem}.scale" in model.tensors for stem in stems)


def is_quantized_folder(model: ModelFiles, part: str = "") -> bool:
    """Tell whether a folder, or its folder `part` if it has one, holds weights quantized by SDNQ."""
    folder = model.child(part) if part and model.child(part).is_folder else model
    quantization = folder.json("config.json").get("quantization_config")
    if isinstance(quantization, dict) and "sdnq" in str(quantization.get("quant_method", "")).lower():
        return True
    weights = (file for file in folder.files if file.parent == folder.path and file.suffix == ".safetensors")
    first = next(weights, None)
    return first is not None and _has_sdnq_scales(folder.child(first.name))


def part_config(model: ModelFiles, part: str) -> dict[str, Any]:
    """Return the configuration of a pipeline's part, or of the folder itself when it is that part."""
    return model.json(f"{part}/config.json") or model.json("config.json")


def number(config: dict[str, Any], *names: str) -> int | None:
    """Return the first of the fields `names` that holds a whole number."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def has_word(model: ModelFiles, *words: str) -> bool:
    """Tell whether one of `words` stands alone in the name, between anything but letters and digits."""
    return bool(set(re.split(r"[^a-z0-9]+", model.name.lower())) & set(words))


def repo_variant(model: ModelFiles) -> ModelRepoVariant:
    """Return which variant of the weights a folder holds."""
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
    """Return the parts of a pipeline that hold weights, by the names of its model_index.json."""
    definitions: dict[SubModelType, dict[str, Any]] = {}
    for name, value in model.json("model_index.json").items():
        if name in set(SubModelType) and isinstance(value, list) and value:
            kind = next((kind for prefix, kind in _PARTS.items() if str(value[-1]).startswith(prefix)), None)
            kind = kind or (ModelType.Main if name.startswith("transformer") else None)
            if kind:
                definitions[SubModelType(name)] = {"path_or_prefix": name, "model_type": kind}
    return definitions or None
