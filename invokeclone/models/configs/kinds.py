"""What kinds of model and forms on disk add to a record. A record class is one kind, one form and one base put together.

The order is `class X(<kind>, <form>, <base>)`; the base is a family's own subclass of ModelConfig. It refuses to know any family.
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
    """Where a part of a model lies."""

    path_or_prefix: str
    model_type: ModelType
    variant: AnyVariant | None = None


# Forms on disk


class CheckpointFile(BaseModel):
    """A single file of weights."""

    config_path: str | None = Field(default=None, description="Configuration file to load it with")


class Checkpoint(CheckpointFile):
    """A single file of weights as they were trained."""

    format: Literal[ModelFormat.Checkpoint] = ModelFormat.Checkpoint


class PlainCheckpoint(BaseModel):
    """The same, of a kind that needs no configuration file."""

    format: Literal[ModelFormat.Checkpoint] = ModelFormat.Checkpoint


class GGUF(CheckpointFile):
    """A file in GGUF's form, quantized."""

    format: Literal[ModelFormat.GGUFQuantized] = ModelFormat.GGUFQuantized


class BnBNF4(CheckpointFile):
    """A file quantized to 4 bits by bitsandbytes."""

    format: Literal[ModelFormat.BnbQuantizednf4b] = ModelFormat.BnbQuantizednf4b


class SDNQFile(CheckpointFile):
    """A file quantized by SDNQ."""

    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized


class DiffusersFolder(BaseModel):
    """A folder as diffusers and transformers save it."""

    repo_variant: ModelRepoVariant = Field(default=ModelRepoVariant.Default, description="Variant of the weight files")


class Diffusers(DiffusersFolder):
    """A folder of unquantized weights."""

    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers


class SDNQFolder(DiffusersFolder):
    """A folder with weights quantized by SDNQ."""

    format: Literal[ModelFormat.SDNQQuantized] = ModelFormat.SDNQQuantized
    submodels: dict[SubModelType, SubmodelDefinition] | None = Field(default=None, description="Its parts")


class LyCORIS(BaseModel):
    """A LoRA in one file, under any of the names that trainers give its tensors."""

    format: Literal[ModelFormat.LyCORIS] = ModelFormat.LyCORIS


class OMI(BaseModel):
    """A LoRA in one file whose tensors are named as the Open Model Initiative wants."""

    format: Literal[ModelFormat.OMI] = ModelFormat.OMI


class LoRAFolder(BaseModel):
    """A folder with a LoRA as diffusers saves it."""

    format: Literal[ModelFormat.Diffusers] = ModelFormat.Diffusers


# Kinds of model


class MainModel(BaseModel):
    """A model that makes pictures by itself."""

    type: Literal[ModelType.Main] = ModelType.Main
    trigger_phrases: TriggerPhrases | None = Field(default=None, description="Words that it was trained to answer to")
    default_settings: MainModelDefaultSettings | None = Field(default=None, description="What to start from")


class StableDiffusionModel(MainModel):
    """A main model with the UNet of Stable Diffusion 1, 2 or XL."""

    prediction_type: SchedulerPredictionType = Field(description="What the UNet predicts")
    variant: ModelVariantType = Field(description="What the UNet takes besides noise and text")


class CpuOnly(BaseModel):
    """A model that may be kept on the CPU."""

    cpu_only: bool | None = Field(default=None, description="Run it on the CPU")


class VAEModel(CpuOnly):
    """An autoencoder between pixels and latents."""

    type: Literal[ModelType.VAE] = ModelType.VAE


class PiDDecoderModel(BaseModel):
    """A decoder that makes pixels of latents by diffusion, at a higher resolution."""

    type: Literal[ModelType.PiDDecoder] = ModelType.PiDDecoder
    variant: PiDDecoderVariantType = Field(description="Resolutions that it was trained for")


class LoRAModel(BaseModel):
    """A small change to another model's weights."""

    type: Literal[ModelType.LoRA] = ModelType.LoRA
    trigger_phrases: TriggerPhrases | None = Field(default=None, description="Words that it was trained to answer to")
    default_settings: LoraModelDefaultSettings | None = Field(default=None, description="What to start from")


class ControlSettings(BaseModel):
    """A model that is steered by a picture."""

    default_settings: ControlAdapterDefaultSettings | None = Field(default=None, description="What to start from")


class ControlLoRAModel(ControlSettings):
    """A LoRA that lets a model be steered by a picture."""

    type: Literal[ModelType.ControlLoRa] = ModelType.ControlLoRa
    trigger_phrases: TriggerPhrases | None = Field(default=None, description="Words that it was trained to answer to")


class ControlNetModel(ControlSettings):
    """A network beside a denoiser that steers it by a picture."""

    type: Literal[ModelType.ControlNet] = ModelType.ControlNet


class T2IAdapterModel(ControlSettings):
    """A small network that steers a denoiser by a picture."""

    type: Literal[ModelType.T2IAdapter] = ModelType.T2IAdapter


class IPAdapterModel(BaseModel):
    """A network that lets a denoiser attend to a picture as to a prompt."""

    type: Literal[ModelType.IPAdapter] = ModelType.IPAdapter


class IPAdapterFolder(IPAdapterModel):
    """The same as a folder that names the image encoder to go with it."""

    format: Literal[ModelFormat.InvokeAI] = ModelFormat.InvokeAI
    image_encoder_model_id: str = Field(description="Repository of its image encoder")


class EmbeddingFile(BaseModel):
    """A textual inversion in one file."""

    type: Literal[ModelType.TextualInversion] = ModelType.TextualInversion
    format: Literal[ModelFormat.EmbeddingFile] = ModelFormat.EmbeddingFile


class EmbeddingFolder(BaseModel):
    """A textual inversion in a folder."""

    type: Literal[ModelType.TextualInversion] = ModelType.TextualInversion
    format: Literal[ModelFormat.EmbeddingFolder] = ModelFormat.EmbeddingFolder


class OfAnyBase(ModelConfig):
    """A model that is tied to no architecture."""

    base: Literal[BaseModelType.Any] = BaseModelType.Any
