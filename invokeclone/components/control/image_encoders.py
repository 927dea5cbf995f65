"""Which CLIP vision models the image prompts of IP-Adapters are encoded with, and under which names they are installed."""

from dataclasses import dataclass

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.model_fields import ModelIdentifierField
from invokeclone.graph.taxonomy import BaseModelType, ModelType


class ImageEncoderMissing(ValueError):
    """The CLIP vision model that an IP-Adapter needs is not installed."""


@dataclass(frozen=True)
class ImageEncoder:
    """A CLIP vision model: names of its record, the usual one first, and where it can be installed from."""

    names: tuple[str, ...]
    source: str


IMAGE_ENCODERS = {
    "ViT-L": ImageEncoder(("clip-vit-large-patch14",), "openai/clip-vit-large-patch14"),
    "ViT-H": ImageEncoder(
        ("IP Adapter SD1.5 Image Encoder", "ip_adapter_sd_image_encoder", "CLIP ViT-H image encoder"),
        "h94/IP-Adapter::models/image_encoder",
    ),
    "ViT-G": ImageEncoder(
        ("IP Adapter SDXL Image Encoder", "ip_adapter_sdxl_image_encoder"),
        "h94/IP-Adapter::sdxl_models/image_encoder",
    ),
}
"""By the names that nodes and metadata have for them."""


def find_image_encoder(context: InvocationContext, name: str) -> ModelIdentifierField:
    """Return the image encoder that IMAGE_ENCODERS has as `name`, or whose record or repository has this name.

    Raises ImageEncoderMissing.
    """
    encoder = IMAGE_ENCODERS.get(name) or next((e for e in IMAGE_ENCODERS.values() if name in e.names), None)
    for known in encoder.names if encoder else (name,):
        for config in context.models.search_by_attrs(name=known, base=BaseModelType.Any, type=ModelType.CLIPVision):
            return ModelIdentifierField(
                key=config.key, hash=config.hash, name=config.name, base=config.base, type=config.type
            )
    raise ImageEncoderMissing(_how_to_install(name, encoder))


def _how_to_install(name: str, encoder: ImageEncoder | None) -> str:
    if encoder is None:
        return f"The CLIP vision model {name} is not installed: install one whose name is {name}"
    return (
        f"The CLIP vision model {name} is not installed: install {encoder.source} in the model manager "
        f"and name it {encoder.names[0]}"
    )
