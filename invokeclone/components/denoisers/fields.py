"""Field type of transformers."""

from pydantic import BaseModel, Field

from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField


class TransformerField(BaseModel):
    """A diffusion transformer with its LoRAs."""

    transformer: ModelIdentifierField = Field(description="The transformer")
    loras: list[LoRAField] = Field(description="LoRAs to apply")
