"""Model parts as they travel along edges: an identifier plus what was put on it (LoRAs, skipped layers, seamless axes).

Identifiers only; loading belongs to the engine.
"""

from pydantic import BaseModel, Field

from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType, SubModelType


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

    def part(self, submodel: SubModelType) -> "ModelIdentifierField":
        """Return the name of one part of the model."""
        return self.model_copy(update={"submodel_type": submodel})


class LoRAField(BaseModel):
    """A LoRA and how strongly it is applied."""

    lora: ModelIdentifierField = Field(description="The LoRA")
    weight: float = Field(description=FieldDescriptions.lora_weight)
