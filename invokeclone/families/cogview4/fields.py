"""Field and output types of CogView4's conditioning."""

from pydantic import BaseModel, Field

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField


class CogView4ConditioningField(BaseModel):
    """A reference to a stored CogView4 conditioning."""

    conditioning_name: str = Field(description="Name of the conditioning")


@invocation_output("cogview4_conditioning_output")
class CogView4ConditioningOutput(BaseInvocationOutput):
    """A CogView4 conditioning."""

    conditioning: CogView4ConditioningField = OutputField(description=FieldDescriptions.cond)

    @classmethod
    def build(cls, conditioning_name: str) -> "CogView4ConditioningOutput":
        """Return the output for a stored conditioning."""
        return cls(conditioning=CogView4ConditioningField(conditioning_name=conditioning_name))
