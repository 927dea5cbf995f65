"""Nodes that name Stable Diffusion models and note on the names what is to be applied; no model is loaded here."""

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
    """Takes a main model apart into UNet, text encoder and VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.main_model,
        ui_model_base=[BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2],
        ui_model_type=ModelType.Main,
    )

    def invoke(self, context: InvocationContext) -> ModelLoaderOutput:
        """Name the parts."""
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
    """Skips the last layers of a text encoder, beside those that are skipped already."""

    clip: CLIPField = InputField(description=FieldDescriptions.clip, input=Input.Connection, title="CLIP")
    skipped_layers: int = InputField(default=0, ge=0, description="How many more of the last layers to skip")

    def invoke(self, context: InvocationContext) -> CLIPSkipInvocationOutput:
        """Add to the count."""
        skipped = self.clip.skipped_layers + self.skipped_layers
        return CLIPSkipInvocationOutput(clip=self.clip.model_copy(update={"skipped_layers": skipped}))


@invocation(
    "seamless", title="Apply Seamless - SD1.5, SDXL", tags=["seamless", "model"], category="model", version="1.0.2"
)
class SeamlessModeInvocation(BaseInvocation):
    """Makes images whose opposite edges fit each other."""

    unet: UNetField | None = InputField(
        default=None, description=FieldDescriptions.unet, input=Input.Connection, title="UNet"
    )
    vae: VAEField | None = InputField(
        default=None, description=FieldDescriptions.vae_model, input=Input.Connection, title="VAE"
    )
    seamless_y: bool = InputField(default=True, input=Input.Any, description="Whether top and bottom fit each other")
    seamless_x: bool = InputField(default=True, input=Input.Any, description="Whether left and right fit each other")

    def invoke(self, context: InvocationContext) -> SeamlessModeOutput:
        """Note the axes on UNet and VAE."""
        axes = [axis for axis, enabled in (("x", self.seamless_x), ("y", self.seamless_y)) if enabled]
        unet = self.unet and self.unet.model_copy(update={"seamless_axes": axes})
        vae = self.vae and self.vae.model_copy(update={"seamless_axes": axes})
        return SeamlessModeOutput(unet=unet, vae=vae)


@invocation("freeu", title="Apply FreeU - SD1.5, SDXL", tags=["freeu"], category="model", version="1.0.2")
class FreeUInvocation(BaseInvocation):
    """Weighs a UNet's skip connections against its backbone (FreeU)."""

    unet: UNetField = InputField(description=FieldDescriptions.unet, input=Input.Connection, title="UNet")
    b1: float = InputField(default=1.2, ge=-1, le=3, description=FieldDescriptions.freeu_b1)
    b2: float = InputField(default=1.4, ge=-1, le=3, description=FieldDescriptions.freeu_b2)
    s1: float = InputField(default=0.9, ge=-1, le=3, description=FieldDescriptions.freeu_s1)
    s2: float = InputField(default=0.2, ge=-1, le=3, description=FieldDescriptions.freeu_s2)

    def invoke(self, context: InvocationContext) -> UNetOutput:
        """Note the factors on the UNet."""
        config = FreeUConfig(s1=self.s1, s2=self.s2, b1=self.b1, b2=self.b2)
        return UNetOutput(unet=self.unet.model_copy(update={"freeu_config": config}))


@invocation_output("ideal_size_output")
class IdealSizeOutput(BaseInvocationOutput):
    """A size that suits a model."""

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
    """Finds the size of a model's own area that has the proportions of another size."""

    width: int = InputField(default=1024, description="Width of the final image")
    height: int = InputField(default=576, description="Height of the final image")
    unet: UNetField = InputField(description=FieldDescriptions.unet)
    multiplier: float = InputField(default=1.0, description="Factor on the model's own side length")

    def invoke(self, context: InvocationContext) -> IdealSizeOutput:
        """Keep the proportions, change the area."""
        base = context.models.get_config(self.unet.unet.key).base
        architecture = registry.architectures().get(base)
        if architecture is None:
            message = f"the ideal size of models of base {base} is not known"
            raise ValueError(message)
        width, height = ideal_size(self.width / self.height, architecture.defaults.width * self.multiplier)
        return IdealSizeOutput(width=width, height=height)


def ideal_size(aspect: float, side: float) -> tuple[int, int]:
    """Return width and height of about `side` squared with the proportions `aspect`, the shorter at least half of `side`."""
    shorter = max(side // 2, side * min(aspect, 1 / aspect) ** 0.5)
    longer = shorter * max(aspect, 1 / aspect)
    width, height = (longer, shorter) if aspect > 1 else (shorter, longer)
    return int(width) // _GRID * _GRID, int(height) // _GRID * _GRID
