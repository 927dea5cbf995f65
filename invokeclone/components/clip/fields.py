"""Field and output types of CLIP text encoders."""

from pydantic import BaseModel, Field

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField


class CLIPField(BaseModel):
    """A CLIP text encoder with its tokenizer, skipped layers and LoRAs."""

    tokenizer: ModelIdentifierField = Field(description="The tokenizer")
    text_encoder: ModelIdentifierField = Field(description="The text encoder")
    skipped_layers: int = Field(description="Number of last layers to skip")
    loras: list[LoRAField] = Field(description="LoRAs to apply")


@invocation_output("clip_output")
class CLIPOutput(BaseInvocationOutput):
    """A CLIP text encoder."""

    clip: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP")
