"""Nodes that reference Stable Diffusion models and add modifications to the references. They load no model."""

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.clip.fields import CLIPField
from invokeclone.families.stable_diffusion.fields import (
    CLIPSkipInvocationOutput,
    FreeUConfig,
    ModelLoaderOutput,
    SeamlessModeOutput,
    UNetField,
    UNetOutput,
    clip_of,
    unet_of,
)
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.invocations.metadata import check_exists, check_type
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField, OutputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType, SubModelType
from invokeclone.models.identify import registry

_GRID = 8


@invocation("main_model_loader", title="Main Model - SD1.5, SD2", tags=["model"], category="model", version="1.0.4")
class MainModelLoaderInvocation(BaseInvocation):
    """Split a main model into UNet, text encoder and VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.main_model,
        ui_model_base=[BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2],
        ui_model_type=ModelType.Main,
    )

    def invoke(self, context: InvocationContext) -> ModelLoaderOutput:
        """Return references to the parts."""
        check_exists(context, self.model)
        check_type(context, self.model, ModelType.Main)
        return ModelLoaderOutput(
            unet=unet_of(self.model),
            clip=clip_of(self.model, SubModelType.Tokenizer, SubModelType.TextEncoder),
            vae=VAEField(vae=self.model.part(SubModelType.VAE)),
        )


@invocation(
    "clip_skip",
    title="Apply CLIP Skip - SD1.5, SDXL",
    tags=["clipskip", "clip", "skip"],
    category="prompt",
    version="1.1.1",
)
class CLIPSkipInvocation(BaseInvocation):
    """Skip the last layers of a text encoder, in addition to those already skipped."""

    clip: CLIPField = InputField(description=FieldDescriptions.clip, input=Input.Connection, title="CLIP")
    skipped_layers: int = InputField(default=0, ge=0, description="Number of additional last layers to skip")

    def invoke(self, context: InvocationContext) -> CLIPSkipInvocationOutput:
        """Add to the number of skipped layers."""
        skipped = self.clip.skipped_layers + self.skipped_layers
        return CLIPSkipInvocationOutput(clip=self.clip.model_copy(update={"skipped_layers": skipped}))


@invocation(
    "seamless", title="Apply Seamless - SD1.5, SDXL", tags=["seamless", "model"], category="model", version="1.0.2"
)
class SeamlessModeInvocation(BaseInvocation):
    """Make opposite edges of the image match, so that it tiles."""

    unet: UNetField | None = InputField(
        default=None, description=FieldDescriptions.unet, input=Input.Connection, title="UNet"
    )
    vae: VAEField | None = InputField(
        default=None, description=FieldDescriptions.vae_model, input=Input.Connection, title="VAE"
    )
    seamless_y: bool = InputField(default=True, input=Input.Any, description="Whether the top and bottom edges match")
    seamless_x: bool = InputField(default=True, input=Input.Any, description="Whether the left and right edges match")

    def invoke(self, context: InvocationContext) -> SeamlessModeOutput:
        """Add the axes to UNet and VAE."""
        axes = [axis for axis, enabled in (("x", self.seamless_x), ("y", self.seamless_y)) if enabled]
        unet = self.unet and self.unet.model_copy(update={"seamless_axes": axes})
        vae = self.vae and self.vae.model_copy(update={"seamless_axes": axes})
        return SeamlessModeOutput(unet=unet, vae=vae)


@invocation("freeu", title="Apply FreeU - SD1.5, SDXL", tags=["freeu"], category="model", version="1.0.2")
class FreeUInvocation(BaseInvocation):
    """Reweight a UNet's skip connections and backbone (FreeU)."""

    unet: UNetField = InputField(description=FieldDescriptions.unet, input=Input.Connection, title="UNet")
    b1: float = InputField(default=1.2, ge=-1, le=3, description=FieldDescriptions.freeu_b1)
    b2: float = InputField(default=1.4, ge=-1, le=3, description=FieldDescriptions.freeu_b2)
    s1: float = InputField(default=0.9, ge=-1, le=3, description=FieldDescriptions.freeu_s1)
    s2: float = InputField(default=0.2, ge=-1, le=3, description=FieldDescriptions.freeu_s2)

    def invoke(self, context: InvocationContext) -> UNetOutput:
        """Add the factors to the UNet."""
        config = FreeUConfig(s1=self.s1, s2=self.s2, b1=self.b1, b2=self.b2)
        return UNetOutput(unet=self.unet.model_copy(update={"freeu_config": config}))


@invocation_output("ideal_size_output")
class IdealSizeOutput(BaseInvocationOutput):
    """The ideal image size of a model."""

    width: int = OutputField(description="The width in pixels")
    height: int = OutputField(description="The height in pixels")


@invocation(
    "ideal_size",
    title="Ideal Size - SD1.5, SDXL",
    tags=["latents", "math", "ideal_size"],
    category="latents",
    version="1.0.6",
)
class IdealSizeInvocation(BaseInvocation):
    """Calculate the size with a model's native area and the given aspect ratio."""

    width: int = InputField(default=1024, description="Width of the final image")
    height: int = InputField(default=576, description="Height of the final image")
    unet: UNetField = InputField(description=FieldDescriptions.unet)
    multiplier: float = InputField(default=1.0, description="Factor for the model's native side length")

    def invoke(self, context: InvocationContext) -> IdealSizeOutput:
        """Return the size."""
        base = context.models.get_config(self.unet.unet.key).base
        architecture = registry.architectures().get(base)
        if architecture is None:
            message = f"there is no ideal size for models of base {base}"
            raise ValueError(message)
        width, height = ideal_size(self.width / self.height, architecture.defaults.width * self.multiplier)
        return IdealSizeOutput(width=width, height=height)


def ideal_size(aspect: float, side: float) -> tuple[int, int]:
    """Return width and height of about `side` squared with ratio `aspect`.

    The shorter one is at least half of `side`.
    """
    shorter = max(side // 2, side * min(aspect, 1 / aspect) ** 0.5)
    longer = shorter * max(aspect, 1 / aspect)
    width, height = (longer, shorter) if aspect > 1 else (shorter, longer)
    return int(width) // _GRID * _GRID, int(height) // _GRID * _GRID
