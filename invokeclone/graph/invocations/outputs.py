"""Output classes shared by nodes of several packages; an output of a single node is declared next to that node."""

from typing import Any

from pydantic import BaseModel, Field

from invokeclone.graph.context import ImageLike, Tensor
from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import (
    BoundingBoxField,
    ColorField,
    ConditioningField,
    DenoiseMaskField,
    ImageField,
    LatentsField,
    MetadataField,
    OutputField,
    TensorField,
    VideoField,
)
from invokeclone.graph.vocabulary.hints import UIType
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES

LATENT_SCALE_FACTOR = 8
"""Image pixels per latent pixel, in each direction."""


def latents_field(latents_name: str, seed: int | None) -> LatentsField:
    """Return a reference to stored latents."""
    return LatentsField(latents_name=latents_name, seed=seed)


def pixel_size(latents: Tensor) -> dict[str, int]:
    """Return the width and height of the image that latents (batch, channels, height, width) decode to."""
    return {"width": latents.size()[3] * LATENT_SCALE_FACTOR, "height": latents.size()[2] * LATENT_SCALE_FACTOR}


@invocation_output("boolean_output")
class BooleanOutput(BaseInvocationOutput):
    """One boolean."""

    value: bool = OutputField(description="The boolean")


@invocation_output("boolean_collection_output")
class BooleanCollectionOutput(BaseInvocationOutput):
    """A list of booleans."""

    collection: list[bool] = OutputField(description="The booleans")


@invocation_output("integer_output")
class IntegerOutput(BaseInvocationOutput):
    """One integer."""

    value: int = OutputField(description="The integer")


@invocation_output("integer_collection_output")
class IntegerCollectionOutput(BaseInvocationOutput):
    """A list of integers."""

    collection: list[int] = OutputField(description="The integers")


@invocation_output("float_output")
class FloatOutput(BaseInvocationOutput):
    """One float."""

    value: float = OutputField(description="The float")


@invocation_output("float_collection_output")
class FloatCollectionOutput(BaseInvocationOutput):
    """A list of floats."""

    collection: list[float] = OutputField(description="The floats")


@invocation_output("string_output")
class StringOutput(BaseInvocationOutput):
    """One string."""

    value: str = OutputField(description="The string")


@invocation_output("string_collection_output")
class StringCollectionOutput(BaseInvocationOutput):
    """A list of strings."""

    collection: list[str] = OutputField(description="The strings")


@invocation_output("image_output")
class ImageOutput(BaseInvocationOutput):
    """An image and its size."""

    image: ImageField = OutputField(description="The image")
    width: int = OutputField(description="Width of the image in pixels")
    height: int = OutputField(description="Height of the image in pixels")

    @classmethod
    def build(cls, image_dto: ImageLike) -> "ImageOutput":
        """Return the output for a saved image."""
        return cls(image=ImageField(image_name=image_dto.image_name), width=image_dto.width, height=image_dto.height)


@invocation_output("image_collection_output")
class ImageCollectionOutput(BaseInvocationOutput):
    """A list of images."""

    collection: list[ImageField] = OutputField(description="The images")


@invocation_output("video_output")
class VideoOutput(BaseInvocationOutput):
    """A video with its size and duration."""

    video: VideoField = OutputField(description="The video")
    width: int = OutputField(description="Width of the video in pixels")
    height: int = OutputField(description="Height of the video in pixels")
    num_frames: int = OutputField(description="Number of frames")
    fps: float = OutputField(description="Frames per second")
    duration: float = OutputField(description="Duration in seconds")


@invocation_output("mask_output")
class MaskOutput(BaseInvocationOutput):
    """A mask tensor and its size."""

    mask: TensorField = OutputField(description="The mask")
    width: int = OutputField(description="Width of the mask in pixels")
    height: int = OutputField(description="Height of the mask in pixels")


@invocation_output("denoise_mask_output")
class DenoiseMaskOutput(BaseInvocationOutput):
    """A mask for denoising."""

    denoise_mask: DenoiseMaskField = OutputField(description="Mask to denoise with")

    @classmethod
    def build(
        cls, mask_name: str, masked_latents_name: str | None = None, *, gradient: bool = False
    ) -> "DenoiseMaskOutput":
        """Return the output for stored tensors."""
        field = DenoiseMaskField(mask_name=mask_name, masked_latents_name=masked_latents_name, gradient=gradient)
        return cls(denoise_mask=field)


@invocation_output("gradient_mask_output")
class GradientMaskOutput(BaseInvocationOutput):
    """A denoise mask and an image of the area it affects."""

    denoise_mask: DenoiseMaskField = OutputField(description="Mask to denoise with")
    expanded_mask_area: ImageField = OutputField(description="Image of the area that the mask affects")


@invocation_output("latents_output")
class LatentsOutput(BaseInvocationOutput):
    """Latents and the size of the image they decode to."""

    latents: LatentsField = OutputField(description=FieldDescriptions.latents)
    width: int = OutputField(description=FieldDescriptions.width)
    height: int = OutputField(description=FieldDescriptions.height)

    @classmethod
    def build(cls, latents_name: str, latents: Tensor, seed: int | None = None) -> "LatentsOutput":
        """Return the output for latents (batch, channels, height, width) stored under a name."""
        return cls(latents=latents_field(latents_name, seed), **pixel_size(latents))


@invocation_output("latents_collection_output")
class LatentsCollectionOutput(BaseInvocationOutput):
    """A list of latents."""

    collection: list[LatentsField] = OutputField(description=FieldDescriptions.latents)


@invocation_output("noise_output")
class NoiseOutput(BaseInvocationOutput):
    """Noise and the size of the image it corresponds to."""

    noise: LatentsField = OutputField(description=FieldDescriptions.noise)
    width: int = OutputField(description=FieldDescriptions.width)
    height: int = OutputField(description=FieldDescriptions.height)

    @classmethod
    def build(cls, latents_name: str, latents: Tensor, seed: int | None) -> "NoiseOutput":
        """Return the output for noise (batch, channels, height, width) stored under a name."""
        return cls(noise=latents_field(latents_name, seed), **pixel_size(latents))


@invocation_output("color_output")
class ColorOutput(BaseInvocationOutput):
    """A color."""

    color: ColorField = OutputField(description="The color")


@invocation_output("color_collection_output")
class ColorCollectionOutput(BaseInvocationOutput):
    """A list of colors."""

    collection: list[ColorField] = OutputField(description="The colors")


@invocation_output("conditioning_output")
class ConditioningOutput(BaseInvocationOutput):
    """A text conditioning."""

    conditioning: ConditioningField = OutputField(description=FieldDescriptions.cond)

    @classmethod
    def build(cls, conditioning_name: str) -> "ConditioningOutput":
        """Return the output for a stored conditioning."""
        return cls(conditioning=ConditioningField(conditioning_name=conditioning_name))


@invocation_output("conditioning_collection_output")
class ConditioningCollectionOutput(BaseInvocationOutput):
    """A list of text conditionings."""

    collection: list[ConditioningField] = OutputField(description="The conditionings")


@invocation_output("bounding_box_output")
class BoundingBoxOutput(BaseInvocationOutput):
    """A bounding box."""

    bounding_box: BoundingBoxField = OutputField(description="The bounding box")


@invocation_output("bounding_box_collection_output")
class BoundingBoxCollectionOutput(BaseInvocationOutput):
    """A list of bounding boxes."""

    collection: list[BoundingBoxField] = OutputField(description="The bounding boxes", title="Bounding Boxes")


class MetadataItemField(BaseModel):
    """A labeled metadata item."""

    label: str = Field(description=FieldDescriptions.metadata_item_label)
    value: Any = Field(description=FieldDescriptions.metadata_item_value)


@invocation_output("metadata_item_output")
class MetadataItemOutput(BaseInvocationOutput):
    """A metadata item."""

    item: MetadataItemField = OutputField(description="The metadata item")


@invocation_output("metadata_output")
class MetadataOutput(BaseInvocationOutput):
    """Metadata to save with an image."""

    metadata: MetadataField = OutputField(description="The metadata")


@invocation_output("latents_meta_output")
class LatentsMetaOutput(LatentsOutput, MetadataOutput):
    """Latents, and metadata of the generation."""


@invocation_output("scheduler_output")
class SchedulerOutput(BaseInvocationOutput):
    """The name of a scheduler."""

    scheduler: SCHEDULER_NAME_VALUES = OutputField(description=FieldDescriptions.scheduler, ui_type=UIType.Scheduler)


@invocation_output("lora_selector_output")
class LoRASelectorOutput(BaseInvocationOutput):
    """A LoRA and its weight."""

    lora: LoRAField = OutputField(description="The LoRA and its weight", title="LoRA")


@invocation_output("model_identifier_output")
class ModelIdentifierOutput(BaseInvocationOutput):
    """A model."""

    model: ModelIdentifierField = OutputField(description="The model", title="Model")
