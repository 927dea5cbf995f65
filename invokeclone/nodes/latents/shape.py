"""Nodes that resize, crop and blend latents of all families."""

from typing import Literal

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import LATENT_SCALE_FACTOR, LatentsOutput
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.fields import FieldDescriptions, ImageField, Input, InputField, LatentsField

LATENTS_INTERPOLATION_MODE = Literal["nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"]


@invocation("lresize", title="Resize Latents", tags=["latents", "resize"], category="latents", version="1.0.2")
class ResizeLatentsInvocation(BaseInvocation):
    """Resize latents to a size in pixels."""

    latents: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    width: int = InputField(ge=64, multiple_of=LATENT_SCALE_FACTOR, description=FieldDescriptions.width)
    height: int = InputField(ge=64, multiple_of=LATENT_SCALE_FACTOR, description=FieldDescriptions.height)
    mode: LATENTS_INTERPOLATION_MODE = InputField(default="bilinear", description=FieldDescriptions.interp)
    antialias: bool = InputField(default=False, description=FieldDescriptions.torch_antialias)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Resize and save the latents."""
        from invokeclone.engine.latents import resize

        size = (self.height // LATENT_SCALE_FACTOR, self.width // LATENT_SCALE_FACTOR)
        resized = resize(context.tensors.load(self.latents.latents_name), *size, self.mode, antialias=self.antialias)
        return LatentsOutput.build(context.tensors.save(resized), resized, self.latents.seed)


@invocation("lscale", title="Scale Latents", tags=["latents", "resize"], category="latents", version="1.0.2")
class ScaleLatentsInvocation(BaseInvocation):
    """Scale latents by a factor."""

    latents: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    scale_factor: float = InputField(gt=0, description=FieldDescriptions.scale_factor)
    mode: LATENTS_INTERPOLATION_MODE = InputField(default="bilinear", description=FieldDescriptions.interp)
    antialias: bool = InputField(default=False, description=FieldDescriptions.torch_antialias)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Scale and save the latents."""
        from invokeclone.engine.latents import scale

        latents = context.tensors.load(self.latents.latents_name)
        height, width = (round(side * LATENT_SCALE_FACTOR * self.scale_factor) for side in latents.shape[-2:])
        check_pixels(width, height, context.config.get().limits, f"node {self.id} ({self.get_type()})")
        scaled = scale(latents, self.scale_factor, self.mode, antialias=self.antialias)
        return LatentsOutput.build(context.tensors.save(scaled), scaled, self.latents.seed)


@invocation("lblend", title="Blend Latents", tags=["latents", "blend", "mask"], category="latents", version="1.1.0")
class BlendLatentsInvocation(BaseInvocation):
    """Blend two latents of the same size."""

    latents_a: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    latents_b: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    mask: ImageField | None = InputField(default=None, description="Mask for blending B: black fully, white not at all")
    alpha: float = InputField(default=0.5, ge=0, description=FieldDescriptions.blend_alpha)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Blend and save the latents."""
        from invokeclone.components.autoencoders.vae import mask_to_tensor
        from invokeclone.engine.latents import blend

        first, second = (context.tensors.load(field.latents_name) for field in (self.latents_a, self.latents_b))
        mask = mask_to_tensor(context.images.get_pil(self.mask.image_name)) if self.mask else None
        blended = blend(first, second, self.alpha, mask)
        return LatentsOutput.build(context.tensors.save(blended), blended)


@invocation("crop_latents", title="Crop Latents", tags=["latents", "crop"], category="latents", version="1.0.2")
class CropLatentsCoreInvocation(BaseInvocation):
    """Crop latents to a rectangle given in pixels."""

    latents: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    x: int = InputField(ge=0, multiple_of=LATENT_SCALE_FACTOR, description="Left edge in pixels")
    y: int = InputField(ge=0, multiple_of=LATENT_SCALE_FACTOR, description="Top edge in pixels")
    width: int = InputField(ge=1, multiple_of=LATENT_SCALE_FACTOR, description=FieldDescriptions.width)
    height: int = InputField(ge=1, multiple_of=LATENT_SCALE_FACTOR, description=FieldDescriptions.height)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Crop and save the latents."""
        latents = context.tensors.load(self.latents.latents_name)
        left, top, width, height = (side // LATENT_SCALE_FACTOR for side in (self.x, self.y, self.width, self.height))
        cropped = latents[..., top : top + height, left : left + width].clone()
        if 0 in cropped.shape:
            message = "the crop rectangle is outside the latents"
            raise ValueError(message)
        return LatentsOutput.build(context.tensors.save(cropped), cropped)
