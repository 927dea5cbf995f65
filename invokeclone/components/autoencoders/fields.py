"""An autoencoder as it travels along edges."""

from pydantic import BaseModel, Field

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField


class VAEField(BaseModel):
    """A VAE."""

    vae: ModelIdentifierField = Field(description="The VAE")
    seamless_axes: list[str] = Field(default_factory=list, description='Axes that wrap around ("x", "y")')


@invocation_output("vae_output")
class VAEOutput(BaseInvocationOutput):
    """A VAE."""

    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")
