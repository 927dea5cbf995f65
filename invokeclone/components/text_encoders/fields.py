"""Field types of text encoders other than CLIP."""

from pydantic import BaseModel, Field

from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField


class T5EncoderField(BaseModel):
    """A T5 text encoder with its tokenizer and LoRAs."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
    loras: list[LoRAField] = Field(description="LoRAs to apply")


class GlmEncoderField(BaseModel):
    """A GLM text encoder with its tokenizer."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")


class Qwen3EncoderField(BaseModel):
    """A Qwen3 text encoder with its tokenizer and LoRAs."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
    loras: list[LoRAField] = Field(default_factory=list, description="LoRAs to apply")


class MistralEncoderField(BaseModel):
    """A Mistral text encoder with its tokenizer and LoRAs."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
    loras: list[LoRAField] = Field(default_factory=list, description="LoRAs to apply")
