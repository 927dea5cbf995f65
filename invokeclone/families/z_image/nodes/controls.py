"""ControlNets of Z-Image: the node that selects one, and those of a denoise node."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.families.z_image.fields import ZImageControlField, ZImageControlOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.vocabulary.fields import ImageField, InputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Classification, ModelType

if TYPE_CHECKING:
    import torch

    from invokeclone.families.z_image.controlnet import ZImageControlNet


@invocation(
    "z_image_control",
    title="Z-Image ControlNet",
    tags=["image", "z-image", "control", "controlnet"],
    category="conditioning",
    version="1.1.0",
    classification=Classification.Prototype,
)
class ZImageControlInvocation(BaseInvocation):
    """Select a ControlNet of Z-Image and its image."""

    image: ImageField = InputField(description="The control image, for example of edges, depth or a pose")
    control_model: ModelIdentifierField = InputField(
        description="The ControlNet",
        title="Control Model",
        ui_model_base=BaseModelType.ZImage,
        ui_model_type=ModelType.ControlNet,
    )
    control_context_scale: float = InputField(
        default=0.75, ge=0.0, le=2.0, description="Strength of the ControlNet", title="Control Scale"
    )
    begin_step_percent: float = InputField(default=0.0, ge=0.0, le=1.0, description="When the ControlNet begins to act")
    end_step_percent: float = InputField(default=1.0, ge=0.0, le=1.0, description="When the ControlNet stops acting")

    def invoke(self, context: InvocationContext) -> ZImageControlOutput:
        """Return the ControlNet with its image."""
        check_exists(context, self.control_model)
        check_type(context, self.control_model, ModelType.ControlNet)
        check_base(context.models.get_config(self.control_model.key), BaseModelType.ZImage)
        return ZImageControlOutput(
            control=ZImageControlField(
                image_name=self.image.image_name,
                control_model=self.control_model,
                control_context_scale=self.control_context_scale,
                begin_step_percent=self.begin_step_percent,
                end_step_percent=self.end_step_percent,
            )
        )


def encode_control_image(
    context: InvocationContext, field: ZImageControlField, vae: VAEField | None, width: int, height: int
) -> "torch.Tensor":
    """Return the latents of a control image at the size of the result. Raises ValueError without a VAE."""
    from PIL import Image

    from invokeclone.components.autoencoders import vae as autoencoder
    from invokeclone.engine.loaded import device_of

    if vae is None:
        message = (
            "a ControlNet needs the VAE that encodes its image: connect vae of the model loader to the denoise node"
        )
        raise ValueError(message)
    image = context.images.get_pil(field.image_name, mode="RGB").resize((width, height), Image.Resampling.LANCZOS)
    loaded = context.models.load(vae.vae)
    with loaded as model:
        context.util.signal_progress("Running VAE encoder")
        pixels = autoencoder.image_to_tensor(image)
        return autoencoder.encode(model, pixels, device_of(loaded, model), model.dtype).cpu()


def load_controlnet(
    context: InvocationContext, stack: ExitStack, field: ZImageControlField, transformer: Any, image: "torch.Tensor"
) -> "ZImageControlNet":
    """Return a ControlNet for a run; `stack` holds its model. Raises ValueError for one of another base or size."""
    from invokeclone.families.z_image.controlnet import ZImageControlNet

    loaded = context.models.load(field.control_model)
    check_base(loaded.config, BaseModelType.ZImage)
    net = stack.enter_context(loaded)
    if net.config.dim != transformer.config.dim:
        message = f"{field.control_model.name} is for a transformer of another size (width {net.config.dim}, not {transformer.config.dim}): select another ControlNet"
        raise ValueError(message)
    return ZImageControlNet(
        net, transformer, image, field.control_context_scale, field.begin_step_percent, field.end_step_percent
    )
