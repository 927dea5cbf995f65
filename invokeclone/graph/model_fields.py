"""Model parts as they travel along edges: an identifier plus what was put on it (LoRAs, skipped layers, seamless axes).

Identifiers only; loading belongs to the engine.
"""

from pydantic import BaseModel, Field

from invokeclone.graph.descriptions import FieldDescriptions
from invokeclone.graph.taxonomy import BaseModelType, ModelType, SubModelType


class ModelIdentifierField(BaseModel):
    """A model record, by key; hash and name help to find it again on another machine."""

    key: str = Field(description="The model's unique key")
    hash: str = Field(description="The hash of the model's files")
    name: str = Field(description="The model's name")
    base: BaseModelType = Field(description="The model's base")
    type: ModelType = Field(description="The model's type")
    submodel_type: SubModelType | None = Field(
        default=None, description="The part to load, for models of several parts"
    )


class LoRAField(BaseModel):
    """A LoRA and how strongly it is applied."""

    lora: ModelIdentifierField = Field(description="The LoRA")
    weight: float = Field(description=FieldDescriptions.lora_weight)


class FreeUConfig(BaseModel):
    """FreeU's four factors."""

    s1: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_s1)
    s2: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_s2)
    b1: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_b1)
    b2: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_b2)


class UNetField(BaseModel):
    """A UNet with its scheduler and what is put on it."""

    unet: ModelIdentifierField = Field(description="The UNet")
    scheduler: ModelIdentifierField = Field(description="The scheduler")
    loras: list[LoRAField] = Field(description="LoRAs to apply")
    seamless_axes: list[str] = Field(default_factory=list, description='Axes that wrap around ("x", "y")')
    freeu_config: FreeUConfig | None = Field(default=None, description="FreeU, if any")


class CLIPField(BaseModel):
    """A CLIP text encoder with its tokenizer and what is put on it."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
    skipped_layers: int = Field(description="How many of the last layers are skipped")
    loras: list[LoRAField] = Field(description="LoRAs to apply")


class VAEField(BaseModel):
    """A VAE."""

    vae: ModelIdentifierField = Field(description="The VAE")
    seamless_axes: list[str] = Field(default_factory=list, description='Axes that wrap around ("x", "y")')


class TransformerField(BaseModel):
    """A diffusion transformer with its LoRAs."""

    transformer: ModelIdentifierField = Field(description="The transformer")
    loras: list[LoRAField] = Field(description="LoRAs to apply")


class T5EncoderField(BaseModel):
    """A T5 text encoder with its tokenizer and LoRAs."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
    loras: list[LoRAField] = Field(description="LoRAs to apply")


class GlmEncoderField(BaseModel):
    """A GLM text encoder with its tokenizer."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
