"""Nodes that create and merge metadata, or read it from an image: items, dictionaries, the record of a generation."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.control.fields import (
    ControlNetMetadataField,
    IPAdapterMetadataField,
    LoRAMetadataField,
    T2IAdapterMetadataField,
)
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import CUSTOM_LABEL
from invokeclone.graph.invocations.outputs import MetadataItemField, MetadataItemOutput, MetadataOutput, StringOutput
from invokeclone.graph.vocabulary.fields import ImageField, Input, InputField, MetadataField, UIType, WithMetadata
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import Classification
from invokeclone.version import API_VERSION


@invocation(
    "metadata_item",
    title="Metadata Item",
    tags=["metadata"],
    category="metadata",
    version="1.0.1",
)
class MetadataItemInvocation(BaseInvocation):
    """Label a value."""

    label: str = InputField(description="The label")
    value: Any = InputField(description="The value", ui_type=UIType.Any)

    def invoke(self, context: InvocationContext) -> MetadataItemOutput:
        """Return the labeled value."""
        return MetadataItemOutput(item=MetadataItemField(label=self.label, value=self.value))


@invocation(
    "metadata",
    title="Metadata",
    tags=["metadata"],
    category="metadata",
    version="1.0.1",
)
class MetadataInvocation(BaseInvocation):
    """Create metadata from labeled values."""

    items: list[MetadataItemField] | MetadataItemField = InputField(description="One or more labeled values")

    def invoke(self, context: InvocationContext) -> MetadataOutput:
        """Return the metadata; the last of equal labels takes precedence."""
        items = self.items if isinstance(self.items, list) else [self.items]
        return MetadataOutput(metadata=MetadataField({item.label: item.value for item in items}))


@invocation(
    "merge_metadata",
    title="Metadata Merge",
    tags=["metadata"],
    category="metadata",
    version="1.0.1",
)
class MergeMetadataInvocation(BaseInvocation):
    """Merge metadata; the last of equal labels takes precedence."""

    collection: list[MetadataField] = InputField(description="The metadata to merge")

    def invoke(self, context: InvocationContext) -> MetadataOutput:
        """Return the merged metadata."""
        merged: dict[str, Any] = {}
        for entry in self.collection:
            merged |= entry.root
        return MetadataOutput(metadata=MetadataField(merged))


@invocation(
    "core_metadata",
    title="Core Metadata",
    tags=["metadata"],
    category="metadata",
    version="2.2.0",
    classification=Classification.Internal,
)
class CoreMetadataInvocation(BaseInvocation):
    """Record how an image was generated; other labels may be added."""

    model_config = ConfigDict(extra="allow")

    OWN: ClassVar[set[str]] = {"id", "type", "is_intermediate", "use_cache"}
    """Fields of the node that are not recorded."""

    generation_mode: (
        Literal[
            "txt2img",
            "img2img",
            "inpaint",
            "outpaint",
            "sdxl_txt2img",
            "sdxl_img2img",
            "sdxl_inpaint",
            "sdxl_outpaint",
            "flux_txt2img",
            "flux_img2img",
            "flux_inpaint",
            "flux_outpaint",
            "flux2_txt2img",
            "flux2_img2img",
            "flux2_inpaint",
            "flux2_outpaint",
            "sd3_txt2img",
            "sd3_img2img",
            "sd3_inpaint",
            "sd3_outpaint",
            "cogview4_txt2img",
            "cogview4_img2img",
            "cogview4_inpaint",
            "cogview4_outpaint",
            "z_image_txt2img",
            "z_image_img2img",
            "z_image_inpaint",
            "z_image_outpaint",
            "ernie_image_txt2img",
            "ideogram4_txt2img",
            "qwen_image_txt2img",
            "qwen_image_img2img",
            "qwen_image_inpaint",
            "qwen_image_outpaint",
            "anima_txt2img",
            "anima_img2img",
            "anima_inpaint",
            "anima_outpaint",
            "krea2_txt2img",
            "krea2_img2img",
            "krea2_inpaint",
            "krea2_outpaint",
            "wan_txt2img",
            "wan_img2img",
            "wan_inpaint",
            "wan_outpaint",
            "wan_i2v",
        ]
        | None
    ) = InputField(default=None, description="How the image was generated")
    positive_prompt: str | None = InputField(default=None, description="The positive prompt")
    negative_prompt: str | None = InputField(default=None, description="The negative prompt")
    width: int | None = InputField(default=None, description="Width in pixels")
    height: int | None = InputField(default=None, description="Height in pixels")
    seed: int | None = InputField(default=None, description="The random seed of the noise")
    rand_device: str | None = InputField(default=None, description="The device that generated the noise")
    cfg_scale: float | None = InputField(default=None, description="The guidance scale")
    cfg_rescale_multiplier: float | None = InputField(default=None, description="The guidance rescale multiplier")
    steps: int | None = InputField(default=None, description="The number of steps")
    scheduler: str | None = InputField(default=None, description="The scheduler")
    seamless_x: bool | None = InputField(default=None, description="Whether the image tiles horizontally")
    seamless_y: bool | None = InputField(default=None, description="Whether the image tiles vertically")
    clip_skip: int | None = InputField(default=None, description="Number of skipped CLIP layers")
    model: ModelIdentifierField | None = InputField(default=None, description="The main model")
    controlnets: list[ControlNetMetadataField] | None = InputField(default=None, description="The ControlNets")
    ipAdapters: list[IPAdapterMetadataField] | None = InputField(  # noqa: N815 - the name on the wire
        default=None, description="The IP-Adapters"
    )
    t2iAdapters: list[T2IAdapterMetadataField] | None = InputField(  # noqa: N815 - the name on the wire
        default=None, description="The T2I-Adapters"
    )
    loras: list[LoRAMetadataField] | None = InputField(default=None, description="The LoRAs")
    strength: float | None = InputField(default=None, description="The denoising strength on the initial image")
    init_image: str | None = InputField(default=None, description="The name of the initial image")
    vae: ModelIdentifierField | None = InputField(default=None, description="The VAE, if it was not the main model's")
    qwen3_encoder: ModelIdentifierField | None = InputField(default=None, description="The Qwen3 encoder")
    mistral_encoder: ModelIdentifierField | None = InputField(default=None, description="The Mistral encoder")
    ideogram4_caption: str | None = InputField(default=None, description="The structured caption")
    hrf_enabled: bool | None = InputField(default=None, description="Whether the high resolution fix was on")
    hrf_method: str | None = InputField(default=None, description="The upscaling method of the high resolution fix")
    hrf_strength: float | None = InputField(
        default=None, description="The denoising strength of the high resolution fix"
    )
    positive_style_prompt: str | None = InputField(default=None, description="The positive style prompt")
    negative_style_prompt: str | None = InputField(default=None, description="The negative style prompt")
    refiner_model: ModelIdentifierField | None = InputField(default=None, description="The refiner")
    refiner_cfg_scale: float | None = InputField(default=None, description="The refiner's guidance scale")
    refiner_steps: int | None = InputField(default=None, description="The refiner's number of steps")
    refiner_scheduler: str | None = InputField(default=None, description="The refiner's scheduler")
    refiner_positive_aesthetic_score: float | None = InputField(
        default=None, description="The refiner's positive aesthetic score"
    )
    refiner_negative_aesthetic_score: float | None = InputField(
        default=None, description="The refiner's negative aesthetic score"
    )
    refiner_start: float | None = InputField(
        default=None, description="Where the refiner started, as a fraction of the steps"
    )

    def invoke(self, context: InvocationContext) -> MetadataOutput:
        """Return all recorded values."""
        values = self.model_dump(exclude_none=True, exclude=self.OWN)
        return MetadataOutput(metadata=MetadataField({**values, "app_version": API_VERSION}))


@invocation(
    "metadata_item_linked",
    title="Metadata Item Linked",
    tags=["metadata"],
    category="metadata",
    version="1.0.1",
    classification=Classification.Beta,
)
class MetadataItemLinkedInvocation(BaseInvocation, WithMetadata):
    """Add a labeled value to metadata."""

    label: Literal[
        "* CUSTOM LABEL *",
        "positive_prompt",
        "positive_style_prompt",
        "negative_prompt",
        "negative_style_prompt",
        "width",
        "height",
        "seed",
        "cfg_scale",
        "cfg_rescale_multiplier",
        "steps",
        "scheduler",
        "clip_skip",
        "model",
        "vae",
        "seamless_x",
        "seamless_y",
        "guidance",
        "cfg_scale_start_step",
        "cfg_scale_end_step",
    ] = InputField(default="* CUSTOM LABEL *", description="The label", input=Input.Direct)
    custom_label: str | None = InputField(default=None, description="The label, if custom", input=Input.Direct)
    value: Any = InputField(description="The value", ui_type=UIType.Any)

    def invoke(self, context: InvocationContext) -> MetadataOutput:
        """Return the metadata with the value; a VAE is recorded as its model."""
        value = self.value.vae if isinstance(self.value, VAEField) else self.value
        label = self.custom_label if self.label == CUSTOM_LABEL else self.label
        existing = self.metadata.root if self.metadata else {}
        return MetadataOutput(metadata=MetadataField({**existing, str(label): value, "app_version": API_VERSION}))


@invocation(
    "metadata_from_image",
    title="Metadata From Image",
    tags=["metadata"],
    category="metadata",
    version="1.0.1",
    classification=Classification.Beta,
)
class MetadataFromImageInvocation(BaseInvocation):
    """Read the metadata of an image."""

    image: ImageField = InputField(description="The image")

    def invoke(self, context: InvocationContext) -> MetadataOutput:
        """Return the image's metadata, empty if it has none."""
        return MetadataOutput(metadata=context.images.get_metadata(self.image.image_name) or MetadataField({}))


@invocation(
    "metadata_field_extractor",
    title="Metadata Field Extractor",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Deprecated,
)
class MetadataFieldExtractorInvocation(BaseInvocation):
    """Read one value from the metadata of an image, as a string."""

    image: ImageField = InputField(description="The image")
    key: str = InputField(description="The label of the value")

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Return the value. Raises KeyError if there is none with this label."""
        metadata = context.images.get_metadata(self.image.image_name)
        if metadata is None:
            message = f"No metadata found on image {self.image.image_name}"
            raise ValueError(message)
        if self.key not in metadata.root:
            message = f"Key {self.key!r} not found in the metadata"
            raise KeyError(message)
        return StringOutput(value=str(metadata.root[self.key]))
