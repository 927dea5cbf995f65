"""A CLIP text encoder as it travels along edges."""

from pydantic import BaseModel, Field

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField


class CLIPField(BaseModel):
    """A CLIP text encoder with its tokenizer and what is put on it."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
    skipped_layers: int = Field(description="How many of the last layers are skipped")
    loras: list[LoRAField] = Field(description="LoRAs to apply")


@invocation_output("clip_output")
class CLIPOutput(BaseInvocationOutput):
    """A CLIP text encoder."""

    clip: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP")
