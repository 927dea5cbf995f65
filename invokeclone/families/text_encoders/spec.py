"""What text encoders look like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import MistralVariantType, ModelFormat, ModelType, Qwen3VariantType
from invokeclone.models.kinds import GGUF, Checkpoint, CpuOnly, OfAnyBase, SDNQFile
from invokeclone.models.rules import Family


class T5Encoder_T5Encoder_Config(CpuOnly, OfAnyBase):
    """A T5 encoder in a folder."""

    type: Literal[ModelType.T5Encoder] = ModelType.T5Encoder
    format: Literal[ModelFormat.T5Encoder] = ModelFormat.T5Encoder


class T5Encoder_BnBLLMint8_Config(CpuOnly, OfAnyBase):
    """A T5 encoder quantized to 8 bits by bitsandbytes."""

    type: Literal[ModelType.T5Encoder] = ModelType.T5Encoder
    format: Literal[ModelFormat.BnbQuantizedLlmInt8b] = ModelFormat.BnbQuantizedLlmInt8b


class T5Encoder_SDNQ_Config(CpuOnly, OfAnyBase):
    """A T5 encoder quantized by SDNQ."""

    type: Literal[ModelType.T5Encoder] = ModelType.T5Encoder
    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized


class T5Encoder_GGUF_Config(CpuOnly, GGUF, OfAnyBase):
    """A T5 encoder in GGUF's form."""

    type: Literal[ModelType.T5Encoder] = ModelType.T5Encoder


class Qwen3VLEncoder_Checkpoint_Config(CpuOnly, Checkpoint, OfAnyBase):
    """A Qwen3-VL encoder in one file."""

    type: Literal[ModelType.Qwen3VLEncoder] = ModelType.Qwen3VLEncoder


class Qwen3VLEncoder_Qwen3VLEncoder_Config(CpuOnly, OfAnyBase):
    """A Qwen3-VL encoder in a folder."""

    type: Literal[ModelType.Qwen3VLEncoder] = ModelType.Qwen3VLEncoder
    format: Literal[ModelFormat.Qwen3VLEncoder] = ModelFormat.Qwen3VLEncoder


class Qwen3Encoder_Qwen3Encoder_Config(CpuOnly, OfAnyBase):
    """A Qwen3 encoder in a folder."""

    type: Literal[ModelType.Qwen3Encoder] = ModelType.Qwen3Encoder
    format: Literal[ModelFormat.Qwen3Encoder] = ModelFormat.Qwen3Encoder
    variant: Qwen3VariantType = Field(description="Its size")


class Qwen3Encoder_Checkpoint_Config(CpuOnly, Checkpoint, OfAnyBase):
    """A Qwen3 encoder in one file."""

    type: Literal[ModelType.Qwen3Encoder] = ModelType.Qwen3Encoder
    variant: Qwen3VariantType = Field(description="Its size")


class Qwen3Encoder_GGUF_Config(CpuOnly, GGUF, OfAnyBase):
    """A Qwen3 encoder in GGUF's form."""

    type: Literal[ModelType.Qwen3Encoder] = ModelType.Qwen3Encoder
    variant: Qwen3VariantType = Field(description="Its size")


class Qwen3Encoder_SDNQ_Config(CpuOnly, SDNQFile, OfAnyBase):
    """A Qwen3 encoder in one file quantized by SDNQ."""

    type: Literal[ModelType.Qwen3Encoder] = ModelType.Qwen3Encoder
    variant: Qwen3VariantType = Field(description="Its size")


class Qwen3Encoder_SDNQ_Folder_Config(CpuOnly, OfAnyBase):
    """A Qwen3 encoder in a folder quantized by SDNQ."""

    type: Literal[ModelType.Qwen3Encoder] = ModelType.Qwen3Encoder
    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized
    variant: Qwen3VariantType = Field(description="Its size")


class MistralEncoder_Diffusers_Config(CpuOnly, OfAnyBase):
    """A Mistral encoder in a folder."""

    type: Literal[ModelType.MistralEncoder] = ModelType.MistralEncoder
    format: Literal[ModelFormat.MistralEncoder] = ModelFormat.MistralEncoder
    variant: MistralVariantType = Field(description="Which of the published models it is")


class MistralEncoder_Checkpoint_Config(CpuOnly, Checkpoint, OfAnyBase):
    """A Mistral encoder in one file."""

    type: Literal[ModelType.MistralEncoder] = ModelType.MistralEncoder
    variant: MistralVariantType = Field(description="Which of the published models it is")


class MistralEncoder_GGUF_Config(CpuOnly, GGUF, OfAnyBase):
    """A Mistral encoder in GGUF's form."""

    type: Literal[ModelType.MistralEncoder] = ModelType.MistralEncoder
    variant: MistralVariantType = Field(description="Which of the published models it is")


class Gemma2Encoder_Gemma2Encoder_Config(CpuOnly, OfAnyBase):
    """A Gemma 2 encoder in a folder."""

    type: Literal[ModelType.Gemma2Encoder] = ModelType.Gemma2Encoder
    format: Literal[ModelFormat.Gemma2Encoder] = ModelFormat.Gemma2Encoder


class Gemma2Encoder_GGUF_Config(CpuOnly, OfAnyBase):
    """A Gemma 2 encoder in GGUF's form."""

    type: Literal[ModelType.Gemma2Encoder] = ModelType.Gemma2Encoder
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


FAMILY = Family(rules=())
