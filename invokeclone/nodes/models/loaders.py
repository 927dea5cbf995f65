"""Nodes that select a model of any family. They load no model."""

from invokeclone.components.autoencoders.fields import VAEField, VAEOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_exists
from invokeclone.graph.invocations.outputs import LoRASelectorOutput, ModelIdentifierOutput
from invokeclone.graph.vocabulary.fields import FieldDescriptions, InputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType


@invocation("model_identifier", title="Any Model", tags=["model"], category="model", version="1.0.1")
class ModelIdentifierInvocation(BaseInvocation):
    """Select any model."""

    model: ModelIdentifierField = InputField(description="The model to select", title="Model")

    def invoke(self, context: InvocationContext) -> ModelIdentifierOutput:
        """Return the model if it exists."""
        check_exists(context, self.model)
        return ModelIdentifierOutput(model=self.model)


@invocation(
    "vae_loader",
    title="VAE Model - SD1.5, SD2, SDXL, SD3, FLUX",
    tags=["vae", "model"],
    category="model",
    version="1.0.4",
)
class VAELoaderInvocation(BaseInvocation):
    """Select a VAE."""

    vae_model: ModelIdentifierField = InputField(
        description=FieldDescriptions.vae_model,
        title="VAE",
        ui_model_base=[
            BaseModelType.StableDiffusion1,
            BaseModelType.StableDiffusion2,
            BaseModelType.StableDiffusionXL,
            BaseModelType.StableDiffusion3,
            BaseModelType.Flux,
            BaseModelType.Flux2,
        ],
        ui_model_type=ModelType.VAE,
    )

    def invoke(self, context: InvocationContext) -> VAEOutput:
        """Return the VAE."""
        check_exists(context, self.vae_model)
        return VAEOutput(vae=VAEField(vae=self.vae_model))


@invocation("lora_selector", title="Select LoRA", tags=["model"], category="model", version="1.0.3")
class LoRASelectorInvocation(BaseInvocation):
    """Select a LoRA and its weight."""

    lora: ModelIdentifierField = InputField(
        description=FieldDescriptions.lora_model, title="LoRA", ui_model_type=ModelType.LoRA
    )
    weight: float = InputField(default=0.75, description=FieldDescriptions.lora_weight)

    def invoke(self, context: InvocationContext) -> LoRASelectorOutput:
        """Return the LoRA."""
        check_exists(context, self.lora)
        return LoRASelectorOutput(lora=LoRAField(lora=self.lora, weight=self.weight))
