"""Field and output types of autoencoders."""

from pydantic import BaseModel, Field

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField


class VAEField(BaseModel):
    """A VAE."""

    vae: ModelIdentifierField = Field(description="The VAE")
    seamless_axes: list[str] = Field(
        default_factory=list, description='Axes along which images tile seamlessly ("x", "y")'
    )


@invocation_output("vae_output")
class VAEOutput(BaseInvocationOutput):
    """A VAE."""

    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")
