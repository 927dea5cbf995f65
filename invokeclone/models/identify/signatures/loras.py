"""Rules for LoRAs: tensor names of the known trainers, and the base by layer widths. A folder has one weights file."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.defaults import LoraModelDefaultSettings
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Rule, require

WEIGHTS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
_PREFIXES = ("lora_te_", "lora_te1_", "lora_te2_", "lora_unet_", "lora_transformer_", "lycoris_")
_IMAGE_PROMPT_PREFIXES = ("ip_adapter.", "image_proj.")
"""Some IP-Adapters contain LoRA layers."""
_FACTOR = re.compile(
    r"(?P<layer>.*?)(?:^|[._])(?:"
    r"lora(?:_linear_layer)?(?P<number>\d*)[._](?P<matrix>down|up|A|B)(?:\.[\w-]+)?\.weight"
    r"|(?P<factor>lokr_w[12](?:_[ab])?|hada_w1_[ab]|diff)"
    r"|hada_w2_[ab]|oft_blocks|oft_diag|diff_b)"
)
"""A tensor of a LoRA layer: a low-rank matrix, a factor of LoHa or LoKr, or a full difference."""
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
    return model.memoize(_is_lora)


def _is_lora(model: ModelFiles) -> bool:
    return any(name.startswith(_PREFIXES) or _FACTOR.fullmatch(name) for name in model.tensors)


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
    *,
    base_is_guess: bool = False,
    **detectors: Callable[[ModelFiles], object],
) -> Rule:
    """Return the rule for a LoRA file or folder (by the class's name) whose weights pass `recognizes`."""
    folder = config.__name__.startswith("LoRA_Diffusers")

    def check(model: ModelFiles) -> None:
        weights = weights_of(model)
        require(model.is_folder == folder, f"is a folder: {model.is_folder}")
        require(not weights.is_folder, "it has no LoRA weights")
        require(is_lora(weights), "it has no tensors of a LoRA")
        require(not weights.has_prefix(*_IMAGE_PROMPT_PREFIXES), "it is an IP-Adapter")
        require(not is_omi(weights), "it has tensor names of the Open Model Initiative")
        require(recognizes(weights), "its tensors are of another architecture")

    weight_detectors = {name: _of_weights(detect) for name, detect in detectors.items()}
    weight_detectors.setdefault("default_settings", lambda _: LoraModelDefaultSettings())
    return Rule(
        config=config,
        recognizes=check,
        base=_of_weights(base) if base else None,
        detectors=weight_detectors,
        base_is_guess=base_is_guess,
    )


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
        r"(?:base_model\.model\.|transformer\.|diffusion_model\.|lora_unet__?|lora_transformer_|lycoris_|unet\.|net\.)*"
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


class Layer(NamedTuple):
    """A layer changed by a LoRA: its name as in the file, and the widths of its input and output; 0 if not stored."""

    name: str
    inputs: int
    outputs: int


def layers(model: ModelFiles) -> list[Layer]:
    """Return every changed layer whose sizes can be derived from the shapes of its factors."""
    return model.memoize(_layers)


def _layers(model: ModelFiles) -> list[Layer]:
    matrices: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in model.tensors.items():
        match = _FACTOR.fullmatch(name)
        if match and len(tensor.shape) > 1 and (kind := match["matrix"] or match["factor"]):
            matrices.setdefault(match["layer"] + (match["number"] or ""), {})[_SYNONYMS.get(kind, kind)] = tensor.shape
    sized = (Layer(name, _size(shapes, 1), _size(shapes, 0)) for name, shapes in matrices.items())
    return [layer for layer in sized if layer.inputs or layer.outputs]


_SYNONYMS = {"A": "down", "B": "up"}
_FACTORS_OF_SIDE = (("up", "hada_w1_a", "diff"), ("down", "hada_w1_b", "diff"))
"""Tensors whose first axis is a layer's output, and those whose second axis is its input."""


def _size(shapes: dict[str, tuple[int, ...]], side: int) -> int:
    """Return the width of a layer's output (side 0) or input (side 1)."""
    direct = next((shapes[name][side] for name in _FACTORS_OF_SIDE[side] if name in shapes), 0)
    if direct:
        return direct
    parts = (shapes.get(f"lokr_w{k}") or shapes.get(f"lokr_w{k}_{'ab'[side]}") for k in (1, 2))
    first, second = (shape[side] if shape else 0 for shape in parts)
    return first * second


def inputs(model: ModelFiles) -> Iterator[tuple[str, int]]:
    """Yield the name of each changed layer (as in the file) and the width of its input."""
    yield from ((layer.name, layer.inputs) for layer in layers(model) if layer.inputs)


def input_of(model: ModelFiles, pattern: str) -> int | None:
    """Return the input width of the first layer whose name contains `pattern`."""
    regex = re.compile(pattern)
    return next((width for name, width in inputs(model) if regex.search(name)), None)
