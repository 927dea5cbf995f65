"""Nodes that add LoRAs to the fields of FLUX.1 models, which load no model; and control LoRAs of a denoise node."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.denoisers.lora_nodes import ApplyLoRA, ApplyLoRAs, lora_input, lora_list_input, part_input
from invokeclone.components.text_encoders.fields import T5EncoderField
from invokeclone.families.flux.fields import ControlLoRAField, FluxControlLoRALoaderOutput, FluxLoRALoaderOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.vocabulary.fields import FieldDescriptions, ImageField, InputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, FluxVariantType, ModelType

if TYPE_CHECKING:
    import torch


class _Parts(BaseModel):
    transformer: TransformerField | None = part_input(FieldDescriptions.transformer, "Transformer")
    clip: CLIPField | None = part_input(FieldDescriptions.clip, "CLIP")
    t5_encoder: T5EncoderField | None = part_input(FieldDescriptions.t5_encoder, "T5 Encoder")


@invocation(
    "flux_lora_loader", title="Apply LoRA - FLUX", tags=["lora", "model", "flux"], category="model", version="1.2.1"
)
class FluxLoRALoaderInvocation(_Parts, ApplyLoRA):
    """Apply a LoRA to a FLUX.1 transformer and its text encoders."""

    lora: ModelIdentifierField = lora_input(BaseModelType.Flux)
    transformer: TransformerField | None = part_input(FieldDescriptions.transformer, "FLUX Transformer")

    def invoke(self, context: InvocationContext) -> FluxLoRALoaderOutput:
        """Add the LoRA to all three."""
        return self.add_lora(context, FluxLoRALoaderOutput)


@invocation(
    "flux_lora_collection_loader",
    title="Apply LoRA Collection - FLUX",
    tags=["lora", "model", "flux"],
    category="model",
    version="1.3.2",
)
class FLUXLoRACollectionLoader(_Parts, ApplyLoRAs):
    """Apply several LoRAs to a FLUX.1 transformer and its text encoders."""

    loras: LoRAField | list[LoRAField] | None = lora_list_input(BaseModelType.Flux)

    def invoke(self, context: InvocationContext) -> FluxLoRALoaderOutput:
        """Add the LoRAs to all three."""
        return self.add_loras(context, FluxLoRALoaderOutput)


@invocation(
    "flux_control_lora_loader",
    title="Control LoRA - FLUX",
    tags=["lora", "model", "flux"],
    category="model",
    version="1.1.1",
)
class FluxControlLoRALoaderInvocation(BaseInvocation):
    """Select a control LoRA of FLUX.1 and its image."""

    lora: ModelIdentifierField = InputField(
        description=FieldDescriptions.control_lora_model,
        title="Control LoRA",
        ui_model_base=BaseModelType.Flux,
        ui_model_type=ModelType.ControlLoRa,
    )
    image: ImageField = InputField(description="The control image")
    weight: float = InputField(default=1.0, description=FieldDescriptions.lora_weight)

    def invoke(self, context: InvocationContext) -> FluxControlLoRALoaderOutput:
        """Return the control LoRA with its image."""
        check_exists(context, self.lora)
        check_type(context, self.lora, ModelType.ControlLoRa)
        check_base(context.models.get_config(self.lora.key), BaseModelType.Flux)
        return FluxControlLoRALoaderOutput(
            control_lora=ControlLoRAField(lora=self.lora, img=self.image, weight=self.weight)
        )


def control_image(context: InvocationContext, node: Any) -> "torch.Tensor | None":
    """Return the tokens of the image of a denoise node's control LoRA.

    Raises ValueError for a main model that control LoRAs do not fit, and if there is no VAE to encode the image.
    """
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.flux.nodes.images import image_pixels, require_vae
    from invokeclone.families.flux.reference_images import control_tokens

    field: ControlLoRAField | None = node.control_lora
    if field is None or not field.weight:
        return None
    record = context.models.get_config(node.transformer.transformer.key)
    if getattr(record, "variant", None) == FluxVariantType.Schnell:
        message = f"the control LoRA {field.lora.name} is for FLUX.1 dev, but {record.name} is FLUX.1 schnell: select a FLUX.1 dev model, or remove control_lora"
        raise ValueError(message)
    pixels = image_pixels(context, field.img, (node.width, node.height))
    loaded = context.models.load(require_vae(node.controlnet_vae, "control_lora").vae)
    with loaded as vae:
        return control_tokens(vae, pixels, device_of(loaded, vae))


@contextmanager
def patch_control_lora(
    context: InvocationContext, field: ControlLoRAField | None, transformer: Any, device: "torch.device"
) -> Iterator[None]:
    """Apply the control LoRA, if there is one, inside the block. Raises ValueError for one of another model."""
    from invokeclone.families.flux.control_lora import apply_control_lora

    if field is None or not field.weight:
        yield
        return
    with (
        context.models.load(field.lora) as lora,
        apply_control_lora(transformer, field.lora.name, lora.parts, field.weight, device),
    ):
        yield
