"""Field and output types of FLUX's conditioning."""

from pydantic import BaseModel, Field

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import ImageField, OutputField, TensorField


class FluxConditioningField(BaseModel):
    """A reference to a stored FLUX conditioning, with the region of the image that it applies to."""

    conditioning_name: str = Field(description="Name of the conditioning")
    mask: TensorField | None = Field(
        default=None, description="Boolean mask of the region it applies to; None means the whole image"
    )


class FluxKontextConditioningField(BaseModel):
    """A reference image of FLUX.1 Kontext or FLUX.2."""

    image: ImageField = Field(description="The reference image")


@invocation_output("flux_conditioning_output")
class FluxConditioningOutput(BaseInvocationOutput):
    """A FLUX conditioning."""

    conditioning: FluxConditioningField = OutputField(description=FieldDescriptions.cond)

    @classmethod
    def build(cls, conditioning_name: str) -> "FluxConditioningOutput":
        """Return the output that refers to a stored conditioning."""
        return cls(conditioning=FluxConditioningField(conditioning_name=conditioning_name))


@invocation_output("flux_conditioning_collection_output")
class FluxConditioningCollectionOutput(BaseInvocationOutput):
    """A list of FLUX conditionings."""

    collection: list[FluxConditioningField] = OutputField(description="The conditionings")
