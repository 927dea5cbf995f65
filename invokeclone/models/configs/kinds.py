"""Mixins of record classes: the fields of each kind of model and of each form on disk.

A record class combines a kind, a form and a base: `class X(<kind>, <form>, <base>)`, where the base is a family's own
subclass of ModelConfig. Does not depend on any family.
"""

from typing import Literal

from pydantic import BaseModel, Field

from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    ModelFormat,
    ModelRepoVariant,
    ModelType,
    ModelVariantType,
    PiDDecoderVariantType,
    SchedulerPredictionType,
    SubModelType,
)
from invokeclone.models.configs.defaults import (
    ControlAdapterDefaultSettings,
    LoraModelDefaultSettings,
    MainModelDefaultSettings,
    TriggerPhrases,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.configs.variants import AnyVariant


class SubmodelDefinition(BaseModel):
    """The location of a part of a model."""

    path_or_prefix: str
    model_type: ModelType
    variant: AnyVariant | None = None


# Forms on disk


class CheckpointFile(BaseModel):
    """A single file of weights."""

    config_path: str | None = Field(default=None, description="Configuration file to load the model with")


class Checkpoint(CheckpointFile):
    """A single file of unquantized weights."""

    format: Literal[ModelFormat.Checkpoint] = ModelFormat.Checkpoint


class PlainCheckpoint(BaseModel):
    """A single file of unquantized weights, of a kind that needs no configuration file."""

    format: Literal[ModelFormat.Checkpoint] = ModelFormat.Checkpoint


class GGUF(CheckpointFile):
    """A quantized GGUF file."""

    format: Literal[ModelFormat.GGUFQuantized] = ModelFormat.GGUFQuantized


class BnBNF4(CheckpointFile):
    """A file quantized to 4 bits by bitsandbytes."""

    format: Literal[ModelFormat.BnbQuantizednf4b] = ModelFormat.BnbQuantizednf4b


class SDNQFile(CheckpointFile):
    """A file quantized by SDNQ."""

    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized


class DiffusersFolder(BaseModel):
    """A folder in the layout of diffusers or transformers."""

    repo_variant: ModelRepoVariant = Field(default=ModelRepoVariant.Default, description="Variant of the weight files")


class Diffusers(DiffusersFolder):
    """A folder of unquantized weights."""

    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers


class SDNQFolder(DiffusersFolder):
    """A folder with weights quantized by SDNQ."""

    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized
    submodels: dict[SubModelType, SubmodelDefinition] | None = Field(default=None, description="Parts of the pipeline")


class LyCORIS(BaseModel):
    """A LoRA in a single file, with the tensor names of any known trainer."""

    format: Literal[ModelFormat.LyCORIS] = ModelFormat.LyCORIS


class OMI(BaseModel):
    """A LoRA in a single file with the tensor names of the Open Model Initiative."""

    format: Literal[ModelFormat.OMI] = ModelFormat.OMI


class LoRAFolder(BaseModel):
    """A LoRA folder in the layout of diffusers."""

    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers


# Kinds of model


class MainModel(BaseModel):
    """A model that generates images by itself."""

    type: Literal[ModelType.Main] = ModelType.Main
    trigger_phrases: TriggerPhrases | None = Field(
        default=None, description="Trigger phrases the model was trained with"
    )
    default_settings: MainModelDefaultSettings | None = Field(default=None, description="Default settings")


class StableDiffusionModel(MainModel):
    """A main model with the UNet of Stable Diffusion 1, 2 or XL."""

    prediction_type: SchedulerPredictionType = Field(description="Prediction type of the UNet")
    variant: ModelVariantType = Field(description="Variant, by the additional inputs of the UNet")


class CpuOnly(BaseModel):
    """A model that can run on the CPU."""

    cpu_only: bool | None = Field(default=None, description="Whether to run the model on the CPU")


class VAEModel(CpuOnly):
    """An autoencoder between pixels and latents."""

    type: Literal[ModelType.VAE] = ModelType.VAE


class PiDDecoderModel(BaseModel):
    """A diffusion decoder from latents to pixels at a higher resolution."""

    type: Literal[ModelType.PiDDecoder] = ModelType.PiDDecoder
    variant: PiDDecoderVariantType = Field(description="Resolutions the decoder was trained for")


class LoRAModel(BaseModel):
    """A low-rank change to the weights of another model."""

    type: Literal[ModelType.LoRA] = ModelType.LoRA
    trigger_phrases: TriggerPhrases | None = Field(
        default=None, description="Trigger phrases the model was trained with"
    )
    default_settings: LoraModelDefaultSettings | None = Field(default=None, description="Default settings")


class ControlSettings(BaseModel):
    """A model that is controlled by an image."""

    default_settings: ControlAdapterDefaultSettings | None = Field(default=None, description="Default settings")


class ControlLoRAModel(ControlSettings):
    """A LoRA that makes a model controllable by an image."""

    type: Literal[ModelType.ControlLoRa] = ModelType.ControlLoRa
    trigger_phrases: TriggerPhrases | None = Field(
        default=None, description="Trigger phrases the model was trained with"
    )


class ControlNetModel(ControlSettings):
    """A network that controls a denoiser by an image."""

    type: Literal[ModelType.ControlNet] = ModelType.ControlNet


class T2IAdapterModel(ControlSettings):
    """A small network that controls a denoiser by an image."""

    type: Literal[ModelType.T2IAdapter] = ModelType.T2IAdapter


class IPAdapterModel(BaseModel):
    """A network that lets a denoiser attend to an image prompt."""

    type: Literal[ModelType.IPAdapter] = ModelType.IPAdapter


class IPAdapterFolder(IPAdapterModel):
    """An IP adapter folder that names its image encoder."""

    format: Literal[ModelFormat.InvokeAI] = ModelFormat.InvokeAI
    image_encoder_model_id: str = Field(description="Repository of the image encoder")


class EmbeddingFile(BaseModel):
    """A textual inversion in a single file."""

    type: Literal[ModelType.TextualInversion] = ModelType.TextualInversion
    format: Literal[ModelFormat.EmbeddingFile] = ModelFormat.EmbeddingFile


class EmbeddingFolder(BaseModel):
    """A textual inversion in a folder."""

    type: Literal[ModelType.TextualInversion] = ModelType.TextualInversion
    format: Literal[ModelFormat.EmbeddingFolder] = ModelFormat.EmbeddingFolder


class OfAnyBase(ModelConfig):
    """A model that is not specific to an architecture."""

    base: Literal[BaseModelType.Any] = BaseModelType.Any
