"""Rules for LoRAs: tensor names of the known trainers, and the base by layer widths. A folder has one weights file."""

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.defaults import LoraModelDefaultSettings
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Rule, require

WEIGHTS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
_PREFIXES = ("lora_te_", "lora_te1_", "lora_te2_", "lora_unet_", "lora_transformer_", "lllite_lora_")
_SUFFIXES = (
    "to_k_lora.up.weight", "to_q_lora.down.weight", "lora_A.weight", "lora_B.weight", "lora_down.weight",
    "lora_up.weight", "lokr_w1", "lokr_w2", "hada_w1_a", "hada_w2_a", "lora_A.default.weight", "lora_B.default.weight",
    ".lora.up.weight", ".lora.down.weight", "lora_linear_layer.up.weight", "lora_linear_layer.down.weight",
)  # fmt: skip
_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight", "_lora.down.weight", ".lora.down.weight",
         ".diff")  # fmt: skip
_PARTS_OF_LOHA, _PARTS_OF_LOKR = ".hada_w1_b", (".lokr_w1", ".lokr_w2", ".lokr_w2_b")
_OMI_BASES = {
    "stable-diffusion-xl-v1-base": BaseModelType.StableDiffusionXL,
    "flux.1-dev": BaseModelType.Flux,
    "flux-1-dev": BaseModelType.Flux,
}
_BASE_OF_WIDTH = {
    768: BaseModelType.StableDiffusion1,
    1024: BaseModelType.StableDiffusion2,
    1280: BaseModelType.StableDiffusionXL,
    2048: BaseModelType.StableDiffusionXL,
}
_DEEP = re.compile(
    r"(?:input_blocks|down_blocks|middle_block|mid_block|output_blocks|up_blocks).*transformer_blocks[_.][2-9]"
)
_FIRST_LAYER = re.compile(r"lora_te(?P<number>[12]?)_text_model_encoder_layers_0_self_attn_q_proj")

T = TypeVar("T")
TensorTest = Callable[[ModelFiles], bool]


def is_lora(model: ModelFiles) -> bool:
    """Return whether a file has tensor names of a LoRA."""
    return any(name.startswith(_PREFIXES) or name.endswith(_SUFFIXES) for name in model.tensors)


def is_omi(model: ModelFiles) -> bool:
    """Return whether a file's metadata declares tensor names of the Open Model Initiative."""
    return "modelspec.sai_model_spec" in model.metadata and model.metadata.get("ot_branch", "").startswith("omi_format")


def weights_of(model: ModelFiles) -> ModelFiles:
    """Return the weights file of a LoRA folder, or the model itself."""
    if not model.is_folder:
        return model
    return next((file for file in map(model.child, WEIGHTS) if file.path.is_file()), model)


def rule(
    config: type[ModelConfig],
    recognizes: TensorTest,
    base: Callable[[ModelFiles], BaseModelType | None] | None = None,
    **detectors: Callable[[ModelFiles], object],
) -> Rule:
    """Return the rule for a LoRA file or folder (by the class's name) whose weights pass `recognizes`."""
    folder = config.__name__.startswith("LoRA_Diffusers")

    def check(model: ModelFiles) -> None:
        weights = weights_of(model)
        require(model.is_folder == folder, f"is a folder: {model.is_folder}")
        require(not weights.is_folder, "it has no LoRA weights")
        require(is_lora(weights), "it has no tensors of a LoRA")
        require(not is_omi(weights), "it has tensor names of the Open Model Initiative")
        require(recognizes(weights), "its tensors are of another architecture")

    weight_detectors = {name: _of_weights(detect) for name, detect in detectors.items()}
    weight_detectors.setdefault("default_settings", lambda _: LoraModelDefaultSettings())
    return Rule(config=config, recognizes=check, base=_of_weights(base) if base else None, detectors=weight_detectors)


def _of_weights(detect: Callable[[ModelFiles], T]) -> Callable[[ModelFiles], T]:
    return lambda model: detect(weights_of(model))


def omi_rule(config: type[ModelConfig]) -> Rule:
    """Return the rule for a file with the Open Model Initiative's tensor names; the base is read from its metadata."""

    def check(model: ModelFiles) -> None:
        require(not model.is_folder, "it is a folder")
        require(is_omi(model), "its metadata does not declare tensor names of the Open Model Initiative")

    def base(model: ModelFiles) -> BaseModelType | None:
        return _OMI_BASES.get(model.metadata.get("modelspec.architecture", "").lower().partition("/")[0])

    return Rule(
        config=config, recognizes=check, base=base, detectors={"default_settings": lambda _: LoraModelDefaultSettings()}
    )


def stable_diffusion_rules(file: type[ModelConfig], folder: type[ModelConfig]) -> tuple[Rule, Rule]:
    """Return the rules for LoRAs of a UNet."""
    return rule(file, is_for_unet, base_of_unet), rule(folder, is_for_unet, base_of_unet)


def names_match(pattern: str) -> TensorTest:
    """Return a test for a file with a tensor name that matches `pattern` after the prefixes added by trainers."""
    begins = re.compile(
        r"(?:base_model\.model\.|transformer\.|diffusion_model\.|lora_unet__?|lora_transformer_|unet\.|net\.)*"
        f"(?:{pattern})"
    )
    return lambda model: any(begins.match(name) for name in model.tensors)


_is_for_transformer = names_match(
    r"(?:double|single)_blocks|(?:single_)?transformer_blocks[._]\d|layers[._]\d|blocks[._]\d"
)


def is_for_unet(model: ModelFiles) -> bool:
    """Return whether a LoRA has no tensor names of a transformer."""
    return not _is_for_transformer(model)


def base_of_unet(model: ModelFiles) -> BaseModelType | None:
    """Return the architecture by the width of the text embeddings, or by the depth of the UNet."""
    width = next((width for name, width in inputs(model) if re.search(r"attn2[._](?:to_k|to_v|processor)", name)), None)
    if width is None:
        width = _width_of_text_encoders(model)
    if width is None and any(_DEEP.search(name) for name in model.tensors):
        return BaseModelType.StableDiffusionXL
    return _BASE_OF_WIDTH.get(width or 0)


def _width_of_text_encoders(model: ModelFiles) -> int | None:
    widths = {match["number"]: width for name, width in inputs(model) if (match := _FIRST_LAYER.match(name))}
    return sum(widths.values()) or None


def inputs(model: ModelFiles) -> Iterator[tuple[str, int]]:
    """Yield the name of each changed layer (as in the file) and the width of its input."""
    for name, tensor in model.tensors.items():
        if name.endswith((*_DOWN, _PARTS_OF_LOHA)) and len(tensor.shape) > 1:
            yield name, tensor.shape[1]
        elif name.endswith(_PARTS_OF_LOKR[0]):
            stem = name.removesuffix(_PARTS_OF_LOKR[0])
            second = model.shape(f"{stem}.lokr_w2") or model.shape(f"{stem}.lokr_w2_b")
            if len(tensor.shape) > 1 and len(second) > 1:
                yield name, tensor.shape[1] * second[1]


def input_of(model: ModelFiles, pattern: str) -> int | None:
    """Return the input width of the first layer whose name contains `pattern`."""
    regex = re.compile(pattern)
    return next((width for name, width in inputs(model) if regex.search(name)), None)
