"""Field and output types of SD3's conditioning."""

from pydantic import BaseModel, Field

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField


class SD3ConditioningField(BaseModel):
    """A reference to a stored SD3 conditioning."""

    conditioning_name: str = Field(description="Name of the conditioning")


@invocation_output("sd3_conditioning_output")
class SD3ConditioningOutput(BaseInvocationOutput):
    """An SD3 conditioning."""

    conditioning: SD3ConditioningField = OutputField(description=FieldDescriptions.cond)

    @classmethod
    def build(cls, conditioning_name: str) -> "SD3ConditioningOutput":
        """Return the output for a stored conditioning."""
        return cls(conditioning=SD3ConditioningField(conditioning_name=conditioning_name))
