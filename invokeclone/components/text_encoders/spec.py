"""Record classes and identification rules of text encoders. Does not import torch."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from invokeclone.components.text_encoders.names import PREFIXES
from invokeclone.graph.vocabulary.taxonomy import MistralVariantType, ModelFormat, ModelType, Qwen3VariantType
from invokeclone.models.configs.kinds import GGUF, Checkpoint, CpuOnly, OfAnyBase, SDNQFile
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.files.tensors import Tensor
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind, require
from invokeclone.models.identify.signatures import forms


class _T5(CpuOnly):
    type: Literal[ModelType.T5Encoder] = ModelType.T5Encoder


class T5Encoder_T5Encoder_Config(_T5, OfAnyBase):
    """A T5 encoder in a folder, or in one safetensors file without its tokenizer."""

    format: Literal[ModelFormat.T5Encoder] = ModelFormat.T5Encoder


class T5Encoder_BnBLLMint8_Config(_T5, OfAnyBase):
    """A T5 encoder quantized to 8 bits by bitsandbytes."""

    format: Literal[ModelFormat.BnbQuantizedLlmInt8b] = ModelFormat.BnbQuantizedLlmInt8b


class T5Encoder_SDNQ_Config(_T5, OfAnyBase):
    """A T5 encoder quantized by SDNQ."""

    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized


class T5Encoder_GGUF_Config(_T5, GGUF, OfAnyBase):
    """A T5 encoder in GGUF format."""


class _Qwen3VL(CpuOnly):
    type: Literal[ModelType.Qwen3VLEncoder] = ModelType.Qwen3VLEncoder


class Qwen3VLEncoder_Checkpoint_Config(_Qwen3VL, Checkpoint, OfAnyBase):
    """A Qwen3-VL encoder in one file."""


class Qwen3VLEncoder_Qwen3VLEncoder_Config(_Qwen3VL, OfAnyBase):
    """A Qwen3-VL encoder in a folder."""

    format: Literal[ModelFormat.Qwen3VLEncoder] = ModelFormat.Qwen3VLEncoder


class _Qwen3(CpuOnly):
    type: Literal[ModelType.Qwen3Encoder] = ModelType.Qwen3Encoder
    variant: Qwen3VariantType = Field(description="Size of the model")


class Qwen3Encoder_Qwen3Encoder_Config(_Qwen3, OfAnyBase):
    """A Qwen3 encoder in a folder."""

    format: Literal[ModelFormat.Qwen3Encoder] = ModelFormat.Qwen3Encoder


class Qwen3Encoder_Checkpoint_Config(_Qwen3, Checkpoint, OfAnyBase):
    """A Qwen3 encoder in one file."""


class Qwen3Encoder_GGUF_Config(_Qwen3, GGUF, OfAnyBase):
    """A Qwen3 encoder in GGUF format."""


class Qwen3Encoder_SDNQ_Config(_Qwen3, SDNQFile, OfAnyBase):
    """A Qwen3 encoder in one file quantized by SDNQ."""


class Qwen3Encoder_SDNQ_Folder_Config(_Qwen3, OfAnyBase):
    """A Qwen3 encoder in a folder quantized by SDNQ."""

    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized


class _Mistral(CpuOnly):
    type: Literal[ModelType.MistralEncoder] = ModelType.MistralEncoder
    variant: MistralVariantType = Field(description="Which published model it is")


class MistralEncoder_Diffusers_Config(_Mistral, OfAnyBase):
    """A Mistral encoder in a folder."""

    format: Literal[ModelFormat.MistralEncoder] = ModelFormat.MistralEncoder


class MistralEncoder_Checkpoint_Config(_Mistral, Checkpoint, OfAnyBase):
    """A Mistral encoder in one file."""


class MistralEncoder_GGUF_Config(_Mistral, GGUF, OfAnyBase):
    """A Mistral encoder in GGUF format."""


class _Gemma2(CpuOnly):
    type: Literal[ModelType.Gemma2Encoder] = ModelType.Gemma2Encoder


class Gemma2Encoder_Gemma2Encoder_Config(_Gemma2, OfAnyBase):
    """A Gemma 2 encoder in a folder."""

    format: Literal[ModelFormat.Gemma2Encoder] = ModelFormat.Gemma2Encoder


class Gemma2Encoder_GGUF_Config(_Gemma2, OfAnyBase):
    """A Gemma 2 encoder in GGUF format."""

    format: Literal[ModelFormat.GGUFQuantized] = ModelFormat.GGUFQuantized


class QwenVLEncoder_Diffusers_Config(OfAnyBase):
    """A Qwen2.5-VL encoder in a folder."""

    type: Literal[ModelType.QwenVLEncoder] = ModelType.QwenVLEncoder
    format: Literal[ModelFormat.QwenVLEncoder] = ModelFormat.QwenVLEncoder


class QwenVLEncoder_Checkpoint_Config(Checkpoint, OfAnyBase):
    """A Qwen2.5-VL encoder in one file."""

    type: Literal[ModelType.QwenVLEncoder] = ModelType.QwenVLEncoder


class WanT5Encoder_WanT5Encoder_Config(CpuOnly, OfAnyBase):
    """Wan's UMT5 encoder in a folder."""

    type: Literal[ModelType.WanT5Encoder] = ModelType.WanT5Encoder
    format: Literal[ModelFormat.WanT5Encoder] = ModelFormat.WanT5Encoder


_ENCODER = "text_encoder"
_ENCODER_2 = "text_encoder_2"
_INDEX = "model.safetensors.index.json"
_QWEN3_WIDTHS = {1024: Qwen3VariantType.Qwen3_06B, 2560: Qwen3VariantType.Qwen3_4B, 4096: Qwen3VariantType.Qwen3_8B}
_QWEN3_VL = (2560, 36)
_MISTRAL_WIDTH = 5120
_MISTRAL_LAYERS = {30: MistralVariantType.CowMistral3Small, 40: MistralVariantType.Mistral3_24B}
_GEMMA2_WIDTH = 2304
_QWEN3 = ("Qwen3ForCausalLM", "Qwen3Model")
_QWEN3_VL_CLASSES = ("Qwen3VLForConditionalGeneration", "Qwen3VLModel")
_QWEN_VL_CLASSES = ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel")
_MISTRAL = ("Mistral3ForConditionalGeneration", "Mistral3Model", "MistralForCausalLM", "MistralModel")
_GEMMA2 = ("Gemma2ForCausalLM", "Gemma2Model")
_T5_POSITIONS = (
    "enc.blk.{}.attn_rel_b.weight",
    "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight",
)
_T5_NAMES = (
    _T5_POSITIONS[1].format(0),
    "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
    "encoder.final_layer_norm.weight",
)
"""Tensors of each T5 encoder of version 1.1 in one safetensors file."""
_LAYER = re.compile(r"(?:layers|blk)\.(\d+)\.")


# Folders


def _encoder_folder(model: ModelFiles) -> ModelFiles:
    """Return the folder of the encoder: the model's own, or the encoder folder of a pipeline."""
    require(model.is_folder, "it is not a folder")
    whole = (model.path / "model_index.json").is_file() or (model.path / "transformer").is_dir()
    require(not whole, "it is a whole pipeline")
    inner = model.child(_ENCODER)
    return inner if inner.is_folder and not (model.path / "config.json").is_file() else model


def _text_config(model: ModelFiles) -> dict[str, Any]:
    config = _encoder_folder(model).json("config.json")
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _is_of(*classes: str, sdnq: bool = False) -> Callable[[ModelFiles], None]:
    def check(model: ModelFiles) -> None:
        encoder = _encoder_folder(model)
        require(encoder.class_name in classes, f"its class is {encoder.class_name}")
        require(forms.is_quantized_folder(encoder) == sdnq, f"quantized by SDNQ: {not sdnq}")

    return check


def _width_of_folder(model: ModelFiles) -> int:
    return forms.number(_text_config(model), "hidden_size") or 0


def _layers_of_folder(model: ModelFiles) -> int:
    return forms.number(_text_config(model), "num_hidden_layers") or 0


def _is_t5_folder(*, sdnq: bool) -> Callable[[ModelFiles], None]:
    def check(model: ModelFiles) -> None:
        require(model.is_folder, "it is not a folder")
        inner = model.child(_ENCODER_2)
        require(inner.class_name == "T5EncoderModel", f"the class of its {_ENCODER_2} is {inner.class_name}")
        require(not (model.path / "model_index.json").is_file(), "it is a whole pipeline")
        require(forms.is_quantized_folder(inner) == sdnq, f"quantized by SDNQ: {not sdnq}")
        require(sdnq or (inner.path / _INDEX).is_file(), f"it has no {_INDEX}")

    return check


def _is_t5(model: ModelFiles) -> None:
    if model.is_folder:
        _is_t5_folder(sdnq=False)(model)
        return
    forms.is_file_stored_as(ModelFormat.Checkpoint)(model)
    require(all(name in model.tensors for name in _T5_NAMES), "it has no tensors of a T5 encoder")
    require("llm_int8" not in model.path.name, "its weights are quantized to 8 bits by bitsandbytes")


def _is_t5_int8(model: ModelFiles) -> None:
    files = [file for file in model.files if "llm_int8" in file.name and file.suffix == ".safetensors"]
    require(files, "it has no file of weights with llm_int8 in its name")
    names = ModelFiles(files[0]).tensors if model.is_folder else model.tensors
    require(any(name.endswith("SCB") for name in names), "its weights are not quantized to 8 bits")
    require(any("SelfAttention" in name for name in names), "it is not a T5 encoder")


def _is_qwen3_vl_folder(model: ModelFiles) -> None:
    _is_of(*_QWEN3_VL_CLASSES)(model)
    size = (_width_of_folder(model), _layers_of_folder(model))
    require(size == _QWEN3_VL, f"its width and layers are {size}")


def _is_gemma2_folder(model: ModelFiles) -> None:
    _is_of(*_GEMMA2)(model)
    require(_width_of_folder(model) == _GEMMA2_WIDTH, f"its width is {_width_of_folder(model)}")


def _is_umt5_folder(model: ModelFiles) -> None:
    kind = _encoder_folder(model).json("config.json").get("model_type")
    require(kind == "umt5", f"its model_type is {kind}")


# Files


def _names(model: ModelFiles) -> Mapping[str, Tensor]:
    return model.without_prefixes(*PREFIXES)


def _width_of_file(model: ModelFiles) -> int:
    embedding = _names(model).get("embed_tokens.weight") or _names(model).get("token_embd.weight")
    return embedding.shape[-1] if embedding and embedding.shape else 0


def _layers_of_file(model: ModelFiles) -> int:
    numbers = [int(match[1]) for name in _names(model) if (match := _LAYER.match(name))]
    return max(numbers, default=-1) + 1


def _is_file_with(form: ModelFormat, *names: str) -> Callable[[ModelFiles], None]:
    """Return the check for a language model file stored as `form` that has all tensors `names`."""
    is_stored = forms.is_file_stored_as(form)

    def check(model: ModelFiles) -> None:
        is_stored(model)
        missing = [name for name in names if name not in _names(model)]
        require(not missing, f"it has no {', '.join(missing)}")

    return check


def _is_qwen3_file(form: ModelFormat) -> Callable[[ModelFiles], None]:
    mark = "blk.0.attn_q_norm.weight" if form is ModelFormat.GGUFQuantized else "layers.0.self_attn.q_norm.weight"
    has_norms = _is_file_with(form, mark)

    def check(model: ModelFiles) -> None:
        has_norms(model)
        require(not _has_vision(model), "it has a vision part")
        require(_width_of_file(model) in _QWEN3_WIDTHS, f"its width is {_width_of_file(model)}")

    return check


def _has_vision(model: ModelFiles) -> bool:
    return any("visual." in name for name in model.tensors)


def _is_qwen3_vl_file(model: ModelFiles) -> None:
    _is_file_with(ModelFormat.Checkpoint, "layers.0.self_attn.q_norm.weight")(model)
    require(_has_vision(model), "it has no vision part")
    size = (_width_of_file(model), _layers_of_file(model))
    require(size == _QWEN3_VL, f"its width and layers are {size}")


def _is_qwen_vl_file(model: ModelFiles) -> None:
    _is_file_with(ModelFormat.Checkpoint, "layers.0.self_attn.q_proj.bias")(model)
    require(_has_vision(model), "it has no vision part")


def _is_mistral_file(form: ModelFormat) -> Callable[[ModelFiles], None]:
    gguf = form is ModelFormat.GGUFQuantized
    first = "blk.0.attn_q.weight" if gguf else "layers.0.self_attn.q_proj.weight"
    norm = "blk.0.attn_q_norm.weight" if gguf else "layers.0.self_attn.q_norm.weight"
    has_layers = _is_file_with(form, first)

    def check(model: ModelFiles) -> None:
        has_layers(model)
        require(norm not in _names(model), "it normalizes its queries, which Mistral does not")
        require(_names(model)[first].shape[:1] != (_MISTRAL_WIDTH,), "its heads are those of Llama")
        size = (_width_of_file(model), _layers_of_file(model))
        require(size[0] == _MISTRAL_WIDTH and size[1] in _MISTRAL_LAYERS, f"its width and layers are {size}")

    return check


def _is_gemma2_gguf(model: ModelFiles) -> None:
    _is_file_with(ModelFormat.GGUFQuantized, "blk.0.post_ffw_norm.weight")(model)
    require(_width_of_file(model) == _GEMMA2_WIDTH, f"its width is {_width_of_file(model)}")


def _is_t5_gguf(model: ModelFiles) -> None:
    forms.is_file_stored_as(ModelFormat.GGUFQuantized)(model)
    require(model.has_prefix("enc.blk."), "it has no tensors of a T5 encoder")
    require(not _is_umt5_file(model), "it is a UMT5 encoder")


def _is_umt5_file(model: ModelFiles) -> bool:
    """Return whether a file is a UMT5 encoder: each layer has its own relative positions, in T5 only the first."""
    return any(name.format(1) in model.tensors for name in _T5_POSITIONS)


def _qwen3_variant(width: Callable[[ModelFiles], int]) -> Callable[[ModelFiles], Qwen3VariantType]:
    def variant(model: ModelFiles) -> Qwen3VariantType:
        require(width(model) in _QWEN3_WIDTHS, f"its width is {width(model)}")
        return _QWEN3_WIDTHS[width(model)]

    return variant


def _mistral_variant_of_folder(model: ModelFiles) -> MistralVariantType:
    size = (_width_of_folder(model), _layers_of_folder(model))
    require(size[0] == _MISTRAL_WIDTH and size[1] in _MISTRAL_LAYERS, f"its width and layers are {size}")
    return _MISTRAL_LAYERS[size[1]]


def _mistral_variant_of_file(model: ModelFiles) -> MistralVariantType:
    return _MISTRAL_LAYERS[_layers_of_file(model)]


_QWEN3_OF_FOLDER = {"variant": _qwen3_variant(_width_of_folder)}
_QWEN3_OF_FILE = {"variant": _qwen3_variant(_width_of_file)}
_MISTRAL_OF_FILE = {"variant": _mistral_variant_of_file}

FAMILY = Family(
    rules=(
        Rule(T5Encoder_T5Encoder_Config, _is_t5),
        Rule(T5Encoder_BnBLLMint8_Config, _is_t5_int8),
        Rule(T5Encoder_SDNQ_Config, _is_t5_folder(sdnq=True)),
        Rule(T5Encoder_GGUF_Config, _is_t5_gguf),
        Rule(Qwen3VLEncoder_Checkpoint_Config, _is_qwen3_vl_file),
        Rule(Qwen3VLEncoder_Qwen3VLEncoder_Config, _is_qwen3_vl_folder),
        Rule(Qwen3Encoder_Qwen3Encoder_Config, _is_of(*_QWEN3), detectors=_QWEN3_OF_FOLDER),
        Rule(Qwen3Encoder_Checkpoint_Config, _is_qwen3_file(ModelFormat.Checkpoint), detectors=_QWEN3_OF_FILE),
        Rule(Qwen3Encoder_GGUF_Config, _is_qwen3_file(ModelFormat.GGUFQuantized), detectors=_QWEN3_OF_FILE),
        Rule(Qwen3Encoder_SDNQ_Config, _is_qwen3_file(ModelFormat.SDNQQuantized), detectors=_QWEN3_OF_FILE),
        Rule(Qwen3Encoder_SDNQ_Folder_Config, _is_of(*_QWEN3, sdnq=True), detectors=_QWEN3_OF_FOLDER),
        Rule(MistralEncoder_Diffusers_Config, _is_of(*_MISTRAL), detectors={"variant": _mistral_variant_of_folder}),
        Rule(MistralEncoder_Checkpoint_Config, _is_mistral_file(ModelFormat.Checkpoint), detectors=_MISTRAL_OF_FILE),
        Rule(MistralEncoder_GGUF_Config, _is_mistral_file(ModelFormat.GGUFQuantized), detectors=_MISTRAL_OF_FILE),
        Rule(Gemma2Encoder_Gemma2Encoder_Config, _is_gemma2_folder),
        Rule(Gemma2Encoder_GGUF_Config, _is_gemma2_gguf),
        Rule(QwenVLEncoder_Diffusers_Config, _is_of(*_QWEN_VL_CLASSES)),
        Rule(QwenVLEncoder_Checkpoint_Config, _is_qwen_vl_file),
        Rule(WanT5Encoder_WanT5Encoder_Config, _is_umt5_folder),
    ),
    unsupported=(UnsupportedKind("a UMT5 encoder in one file; only its folder can be used", _is_umt5_file),),
)
