"""Record classes of InvokeAI 6.8.1, published in the schema for clients generated from that version.

In 6.8.1 a class is determined by type and format, regardless of the base. These classes are never instantiated:
responses have the fields of the 6.14.2 classes, which include every field that 6.8.1 requires.
"""

from typing import Literal

from pydantic import BaseModel

from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    ClipVariantType,
    ModelFormat,
    ModelRepoVariant,
    ModelSourceType,
    ModelType,
    ModelVariantType,
    SchedulerPredictionType,
    SubModelType,
)
from invokeclone.models.configs.defaults import (
    ControlAdapterDefaultSettings,
    LoraModelDefaultSettings,
    MainModelDefaultSettings,
    TriggerPhrases,
)
from invokeclone.models.configs.kinds import SubmodelDefinition

Checkpoints = Literal[ModelFormat.Checkpoint, ModelFormat.BnbQuantizednf4b, ModelFormat.GGUFQuantized]


class _Record(BaseModel):
    """The fields common to all records of 6.8.1."""

    key: str
    hash: str
    path: str
    file_size: int
    name: str
    base: BaseModelType
    source: str
    source_type: ModelSourceType
    description: str | None = None
    source_api_response: str | None = None
    cover_image: str | None = None
    submodels: dict[SubModelType, SubmodelDefinition] | None = None
    usage_info: str | None = None


class _Checkpoint(_Record):
    config_path: str
    format: Checkpoints = ModelFormat.Checkpoint
    converted_at: float | None = None


class _Diffusers(_Record):
    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers
    repo_variant: ModelRepoVariant | None = ModelRepoVariant.Default


class _Main(BaseModel):
    type: Literal[ModelType.Main] = ModelType.Main
    trigger_phrases: TriggerPhrases | None = None
    default_settings: MainModelDefaultSettings | None = None
    variant: ModelVariantType | ClipVariantType | None = ModelVariantType.Normal


class _MainFile(_Main):
    prediction_type: SchedulerPredictionType = SchedulerPredictionType.Epsilon
    upcast_attention: bool = False


class _LoRA(_Record):
    type: Literal[ModelType.LoRA] = ModelType.LoRA
    trigger_phrases: TriggerPhrases | None = None
    default_settings: LoraModelDefaultSettings | None = None


class _Control(BaseModel):
    default_settings: ControlAdapterDefaultSettings | None = None


class _ControlLoRA(_Control, _Record):
    type: Literal[ModelType.ControlLoRa] = ModelType.ControlLoRa
    trigger_phrases: TriggerPhrases | None = None


class MainDiffusersConfig(_Main, _Diffusers):
    """A main model in a folder."""


class MainCheckpointConfig(_MainFile, _Checkpoint):
    """A main model in one file."""


class MainBnbQuantized4bCheckpointConfig(_MainFile, _Checkpoint):
    """A main model quantized by bitsandbytes."""

    format: Literal[ModelFormat.BnbQuantizednf4b] = ModelFormat.BnbQuantizednf4b


class MainGGUFCheckpointConfig(_MainFile, _Checkpoint):
    """A main model in a GGUF file."""

    format: Literal[ModelFormat.GGUFQuantized] = ModelFormat.GGUFQuantized


class VAEDiffusersConfig(_Record):
    """A VAE in a folder."""

    type: Literal[ModelType.VAE] = ModelType.VAE
    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers


class VAECheckpointConfig(_Checkpoint):
    """A VAE in one file."""

    type: Literal[ModelType.VAE] = ModelType.VAE


class ControlNetDiffusersConfig(_Control, _Diffusers):
    """A ControlNet in a folder."""

    type: Literal[ModelType.ControlNet] = ModelType.ControlNet


class ControlNetCheckpointConfig(_Control, _Checkpoint):
    """A ControlNet in one file."""

    type: Literal[ModelType.ControlNet] = ModelType.ControlNet


class LoRALyCORISConfig(_LoRA):
    """A LoRA in one file."""

    format: Literal[ModelFormat.LyCORIS] = ModelFormat.LyCORIS


class LoRAOmiConfig(_LoRA):
    """A LoRA in one file with the tensor names of the Open Model Initiative."""

    format: Literal[ModelFormat.OMI] = ModelFormat.OMI


class LoRADiffusersConfig(_LoRA):
    """A LoRA in a folder."""

    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers


class ControlLoRALyCORISConfig(_ControlLoRA):
    """A control LoRA in one file."""

    format: Literal[ModelFormat.LyCORIS] = ModelFormat.LyCORIS


class ControlLoRADiffusersConfig(_ControlLoRA):
    """A control LoRA in a folder."""

    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers


class T5EncoderConfig(_Record):
    """A T5 text encoder."""

    type: Literal[ModelType.T5Encoder] = ModelType.T5Encoder
    format: Literal[ModelFormat.T5Encoder] = ModelFormat.T5Encoder


class T5EncoderBnbQuantizedLlmInt8bConfig(_Record):
    """A T5 text encoder quantized by bitsandbytes."""

    type: Literal[ModelType.T5Encoder] = ModelType.T5Encoder
    format: Literal[ModelFormat.BnbQuantizedLlmInt8b] = ModelFormat.BnbQuantizedLlmInt8b


class TextualInversionFileConfig(_Record):
    """A textual inversion in one file."""

    type: Literal[ModelType.TextualInversion] = ModelType.TextualInversion
    format: Literal[ModelFormat.EmbeddingFile] = ModelFormat.EmbeddingFile


class TextualInversionFolderConfig(_Record):
    """A textual inversion in a folder."""

    type: Literal[ModelType.TextualInversion] = ModelType.TextualInversion
    format: Literal[ModelFormat.EmbeddingFolder] = ModelFormat.EmbeddingFolder


class IPAdapterInvokeAIConfig(_Record):
    """An IP adapter in a folder."""

    type: Literal[ModelType.IPAdapter] = ModelType.IPAdapter
    format: Literal[ModelFormat.InvokeAI] = ModelFormat.InvokeAI
    image_encoder_model_id: str


class IPAdapterCheckpointConfig(_Record):
    """An IP adapter in one file."""

    type: Literal[ModelType.IPAdapter] = ModelType.IPAdapter
    format: Literal[ModelFormat.Checkpoint] = ModelFormat.Checkpoint


class T2IAdapterConfig(_Control, _Diffusers):
    """A T2I adapter."""

    type: Literal[ModelType.T2IAdapter] = ModelType.T2IAdapter


class SpandrelImageToImageConfig(_Record):
    """An image-to-image model, usually an upscaler."""

    type: Literal[ModelType.SpandrelImageToImage] = ModelType.SpandrelImageToImage
    format: Literal[ModelFormat.Checkpoint] = ModelFormat.Checkpoint


class CLIPVisionDiffusersConfig(_Diffusers):
    """A CLIP image encoder."""

    type: Literal[ModelType.CLIPVision] = ModelType.CLIPVision


class CLIPLEmbedDiffusersConfig(_Diffusers):
    """A CLIP-L text encoder."""

    type: Literal[ModelType.CLIPEmbed] = ModelType.CLIPEmbed
    variant: Literal[ClipVariantType.L] = ClipVariantType.L


class CLIPGEmbedDiffusersConfig(_Diffusers):
    """A CLIP-G text encoder."""

    type: Literal[ModelType.CLIPEmbed] = ModelType.CLIPEmbed
    variant: Literal[ClipVariantType.G] = ClipVariantType.G


class SigLIPConfig(_Diffusers):
    """A SigLIP image encoder."""

    type: Literal[ModelType.SigLIP] = ModelType.SigLIP


class FluxReduxConfig(_Record):
    """A FLUX Redux model."""

    type: Literal[ModelType.FluxRedux] = ModelType.FluxRedux
    format: Literal[ModelFormat.Checkpoint] = ModelFormat.Checkpoint


class LlavaOnevisionConfig(_Diffusers):
    """A LLaVA OneVision model."""

    type: Literal[ModelType.LlavaOnevision] = ModelType.LlavaOnevision


class ApiModelConfig(_Main, _Record):
    """A model of an external provider."""

    format: Literal["api"] = "api"


class VideoApiModelConfig(_Record):
    """A video model of an external provider."""

    type: Literal["video"] = "video"
    format: Literal["api"] = "api"
    trigger_phrases: TriggerPhrases | None = None
    default_settings: MainModelDefaultSettings | None = None
    variant: ModelVariantType | ClipVariantType | None = ModelVariantType.Normal


RECORDS_6_8: tuple[type[BaseModel], ...] = tuple(
    record_class for name, record_class in list(globals().items()) if name.endswith("Config")
)
"""All record classes of 6.8.1."""
