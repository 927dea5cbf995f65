"""References to models and LoRAs, passed along edges. The engine loads them."""

from pydantic import BaseModel, Field

from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType, SubModelType


class ModelIdentifierField(BaseModel):
    """Reference to a model record by key; hash and name help to find the model on another machine."""

    key: str = Field(description="Unique key of the model")
    hash: str = Field(description="Hash of the model's files")
    name: str = Field(description="Name of the model")
    base: BaseModelType = Field(description="Base of the model")
    type: ModelType = Field(description="Type of the model")
    submodel_type: SubModelType | None = Field(default=None, description="Submodel to load, for models with several")

    def part(self, submodel: SubModelType) -> "ModelIdentifierField":
        """Return the reference to a submodel of the model."""
        return self.model_copy(update={"submodel_type": submodel})


class LoRAField(BaseModel):
    """A LoRA and its weight."""

    lora: ModelIdentifierField = Field(description="The LoRA")
    weight: float = Field(description=FieldDescriptions.lora_weight)
