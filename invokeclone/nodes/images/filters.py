"""Nodes that blur, sharpen, enhance and fill single images."""

from typing import Literal

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ColorField, ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.files.image_modes import convert


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colors as RGB, and the transparency, if any."""
    if not image.has_transparency_data:
        return convert(image, "RGB"), None
    whole = convert(image, "RGBA")
    return convert(whole, "RGB"), whole.getchannel("A")


def with_alpha(colors: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Recombine colors and transparency as returned by `split_alpha`."""
    if alpha is not None:
        colors.putalpha(alpha)
    return colors


@invocation("img_blur", title="Blur Image", tags=["image", "blur"], category="image", version="1.2.2")
class ImageBlurInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Blur an image. Transparent pixels do not affect the colors of their neighbors."""

    image: ImageField = InputField(description="The image to blur")
    radius: float = InputField(default=8.0, ge=0, description="Radius of the blur in pixels")
    blur_type: Literal["gaussian", "box"] = InputField(default="gaussian", description="The kind of blur")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Blur and save the image, with premultiplied alpha in between (Pillow's mode RGBa)."""
        blur = ImageFilter.GaussianBlur if self.blur_type == "gaussian" else ImageFilter.BoxBlur
        weighted = convert(context.images.get_pil(self.image.image_name, mode="RGBA"), "RGBa")
        return ImageOutput.build(context.images.save(convert(weighted.filter(blur(self.radius)), "RGBA")))


@invocation("unsharp_mask", title="Unsharp Mask", tags=["image", "unsharp_mask"], category="image", version="1.2.2")
class UnsharpMaskInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Sharpen an image with an unsharp mask, preserving transparency."""

    image: ImageField = InputField(description="The image to sharpen")
    radius: float = InputField(default=2, gt=0, description="Radius of the blur")
    strength: float = InputField(default=50, ge=0, description="Percentage of the difference to add")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Sharpen and save the image."""
        colors, alpha = split_alpha(context.images.get_pil(self.image.image_name))
        sharp = colors.filter(ImageFilter.UnsharpMask(self.radius, round(self.strength), threshold=0))
        return ImageOutput.build(context.images.save(with_alpha(sharp, alpha)))


@invocation("invokeai_img_enhance", title="Enhance Image", tags=["enhance", "image"], category="image", version="1.2.1")
class InvokeImageEnhanceInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Change color, contrast, brightness and sharpness, in this order; 1 means unchanged. Transparency is preserved."""

    image: ImageField = InputField(description="The image to enhance")
    invert: bool = InputField(default=False, description="Whether to invert the colors first")
    color: float = InputField(default=1.0, ge=0, description="Saturation; 0 is gray")
    contrast: float = InputField(default=1.0, ge=0, description="Contrast; 0 is uniform gray")
    brightness: float = InputField(default=1.0, ge=0, description="Brightness; 0 is black")
    sharpness: float = InputField(default=1.0, ge=0, description="Sharpness; 0 is blurred")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Enhance and save the image."""
        colors, alpha = split_alpha(context.images.get_pil(self.image.image_name))
        if self.invert:
            colors = ImageOps.invert(colors)
        for enhancer, factor in (
            (ImageEnhance.Color, self.color),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Sharpness, self.sharpness),
        ):
            if factor != 1.0:
                colors = enhancer(colors).enhance(factor)
        return ImageOutput.build(context.images.save(with_alpha(colors, alpha)))


@invocation("infill_rgba", title="Solid Color Infill", tags=["image", "inpaint"], category="inpaint", version="1.2.2")
class InfillColorInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Fill transparent areas with one color."""

    image: ImageField = InputField(description="The image to fill")
    color: ColorField = InputField(default=ColorField(r=127, g=127, b=127, a=255), description="The color to fill with")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Fill and save the image."""
        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        ground = Image.new("RGBA", image.size, self.color.tuple())
        return ImageOutput.build(context.images.save(Image.alpha_composite(ground, image)))
