"""The CLIP vision models of IP-Adapters, and the names under which they are installed."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType


class ImageEncoderMissing(ValueError):
    """The CLIP vision model of an IP-Adapter is not installed."""


@dataclass(frozen=True)
class ImageEncoder:
    """A CLIP vision model: the names of its record, preferred one first, and its install source."""

    names: tuple[str, ...]
    source: str


IMAGE_ENCODERS = {
    "ViT-L": ImageEncoder(("clip-vit-large-patch14", "CLIP ViT-L image encoder"), "openai/clip-vit-large-patch14"),
    "ViT-H": ImageEncoder(
        ("IP Adapter SD1.5 Image Encoder", "ip_adapter_sd_image_encoder", "CLIP ViT-H image encoder"),
        "h94/IP-Adapter::models/image_encoder",
    ),
    "ViT-G": ImageEncoder(
        ("IP Adapter SDXL Image Encoder", "ip_adapter_sdxl_image_encoder"),
        "h94/IP-Adapter::sdxl_models/image_encoder",
    ),
}
"""Encoders by their names in nodes and metadata."""


DEFAULT = "ViT-H"
"""The encoder that nodes use by default; adapters that name theirs override it."""
_KINDS = ("faceid", "full-face", "plus-face", "plus", "light")
"""Parts of the names of published IP-Adapters, the longer ones first."""
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_VIT_H, _VIT_G = re.compile(r"vit[-_ ]?h", re.IGNORECASE), re.compile(r"vit[-_ ]?(big)?g", re.IGNORECASE)


def encoder_name_of(adapter: Any) -> str | None:
    """Return the image encoder that an IP-Adapter's record names, as the last part of its repository.

    None if it names none.
    """
    if adapter.format != ModelFormat.InvokeAI:
        return None
    return str(adapter.image_encoder_model_id).rstrip("/").rpartition("/")[2]


def default_name(adapter: Any) -> str:
    """Return the likely image encoder of an adapter by its name: for XL the large one, unless it names another.

    XLabs' adapters of FLUX.1 take the one that FLUX.1's text encoder belongs to.
    """
    if adapter.base == BaseModelType.Flux:
        return "ViT-L"
    names = _names_of(adapter)
    if _VIT_H.search(names):
        return "ViT-H"
    return "ViT-G" if _VIT_G.search(names) or adapter.base == BaseModelType.StableDiffusionXL else DEFAULT


def _names_of(adapter: Any) -> str:
    """Return the name of an adapter's record and that of its file, which tell published adapters apart."""
    return f"{adapter.name} {PurePath(adapter.path).stem}"


def adapter_kind(adapter: Any) -> str:
    """Return which of the published IP-Adapters for a base this is, by its name and file, such as `standard` or `plus`."""
    names = _SEPARATORS.sub("-", _names_of(adapter).casefold())
    kind = next((kind for kind in _KINDS if kind in names), "standard")
    return "vit-g" if kind == "standard" and default_name(adapter) == "ViT-G" else kind


def node_name_of(name: str) -> str | None:
    """Return the name of an image encoder in nodes, None if it has none."""
    if name in IMAGE_ENCODERS:
        return name
    return next((node_name for node_name, encoder in IMAGE_ENCODERS.items() if name in encoder.names), None)


def record_names(name: str) -> tuple[str, ...]:
    """Return the names under which an image encoder may be installed, the preferred one first."""
    encoder = _encoder(name)
    return encoder.names if encoder else (name,)


def find_image_encoder(context: InvocationContext, name: str) -> ModelIdentifierField:
    """Return the installed image encoder named `name` in IMAGE_ENCODERS, or whose record or repository has this name.

    Raises ImageEncoderMissing.
    """
    for candidate in record_names(name):
        for config in context.models.search_by_attrs(name=candidate, base=BaseModelType.Any, type=ModelType.CLIPVision):
            return ModelIdentifierField(
                key=config.key, hash=config.hash, name=config.name, base=config.base, type=config.type
            )
    raise ImageEncoderMissing(how_to_install(name))


def _encoder(name: str) -> ImageEncoder | None:
    return IMAGE_ENCODERS.get(name) or next((e for e in IMAGE_ENCODERS.values() if name in e.names), None)


def how_to_install(name: str) -> str:
    """Return instructions for installing a missing image encoder."""
    encoder = _encoder(name)
    if encoder is None:
        return f"The CLIP vision model {name} is not installed: install one with this name"
    return (
        f"The CLIP vision model {name} is not installed: install {encoder.source} in the model manager "
        f"and name it {encoder.names[0]}"
    )
