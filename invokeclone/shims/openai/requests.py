"""Request bodies of the Images API and their validation.

Fields that OpenAI does not have but other clients of this API send (`negative_prompt`, `seed`, `steps`, `cfg_scale`,
`scheduler`, `loras`) are supported too; unknown fields are ignored, as OpenAI's own server does with many.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from starlette.datastructures import FormData, UploadFile

from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import UnsupportedMedia
from invokeclone.kit.json_text import decode_text
from invokeclone.kit.process.offload import off_loop
from invokeclone.queue.generation import SEEDS, LoRAChoice
from invokeclone.shims.compat_api import RequestRejected, read_object
from invokeclone.shims.image_io import Format, check_size, decode_base64

JSON = "application/json"
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")

MAX_EDIT_IMAGES = 16
"""Maximum number of images to edit in OpenAI's own API."""
NO_MODEL = re.compile(r"(dall-e|gpt-image|chatgpt-image|gpt-)", re.IGNORECASE)
"""Names of OpenAI's own models, which many clients send by default; they mean the default model."""
_DALL_E = re.compile(r"dall-e", re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,6})\s*[xX×]\s*(\d{1,6})")

ResultField = Literal["url", "b64_json"]
"""A field of an image in the response, which `response_format` selects."""
Quality = Literal["auto", "low", "medium", "high", "standard", "hd", "xhigh", "max"]
STEP_FACTORS: dict[Quality, float] = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.5}
"""Steps by quality, as a factor of the model's default; 1 for the other qualities."""
STYLE_GUIDANCE = {"vivid": 1.2, "natural": 0.8}
"""Guidance scale by style, as a factor of the model's default."""


def _blank_to_none(value: Any) -> Any:
    """Return None for a blank text, which forms send for empty fields."""
    return None if isinstance(value, str) and not value.strip() else value


Blank = BeforeValidator(_blank_to_none)


def model_name_of(name: str | None) -> str | None:
    """Return the name of the requested model; None: the default model."""
    return None if name is None or NO_MODEL.match(name) else name


class CommonParameters(BaseModel):
    """Parameters of all three routes."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: Annotated[str | None, Blank] = None
    n: Annotated[int | None, Field(ge=1), Blank] = None
    size: Annotated[str | None, Blank] = None
    response_format: Annotated[ResultField | None, Blank] = None
    seed: Annotated[int | None, Field(ge=0, lt=SEEDS), Blank] = None
    steps: Annotated[int | None, Field(ge=1, le=1000), Blank] = None
    cfg_scale: Annotated[float | None, Field(ge=1, le=100), Blank] = None
    scheduler: Annotated[SCHEDULER_NAME_VALUES | None, Blank] = None
    negative_prompt: str = ""
    loras: list[LoRAChoice] = []

    def result_fields(self, deployment: str | None) -> frozenset[ResultField]:
        """Return the fields that each image has in the response.

        By default OpenAI's of the model: a URL for DALL·E, base64 for others. Without a model both, since clients
        that name none expect either.
        """
        if self.response_format:
            return frozenset({self.response_format})
        name = deployment or self.model
        if name is None:
            return frozenset({"url", "b64_json"})
        return frozenset({"url" if _DALL_E.match(name) else "b64_json"})

    @property
    def count(self) -> int:
        """Number of images."""
        return self.n or 1

    @field_validator("size")
    @classmethod
    def _validate_size(cls, value: str | None) -> str | None:
        if value is not None and value != "auto" and not _SIZE.fullmatch(value):
            raise ValueError("must be 'auto' or WIDTHxHEIGHT in pixels, such as 1024x1024")
        return value

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height in pixels; None: not set."""
        match = _SIZE.fullmatch(self.size) if self.size else None
        return (int(match[1]), int(match[2])) if match else None


class PromptParameters(CommonParameters):
    """Parameters of the two routes with a prompt."""

    prompt: str = Field(min_length=1)
    quality: Annotated[Quality, Blank] = "auto"
    output_format: Annotated[Format | None, Blank] = None
    output_compression: Annotated[int | None, Field(ge=0, le=100), Blank] = None
    background: Annotated[Literal["transparent", "opaque", "auto"] | None, Blank] = None
    stream: Annotated[bool | None, Blank] = None
    partial_images: Annotated[int | None, Field(ge=0, le=3), Blank] = None

    @property
    def format(self) -> Format:
        """The format of the files."""
        return self.output_format or "png"

    @property
    def step_factor(self) -> float:
        """Factor of the model's default steps for the quality."""
        return STEP_FACTORS.get(self.quality, 1.0)


class Generation(PromptParameters):
    """Parameters of `images/generations`."""

    style: Annotated[Literal["vivid", "natural"] | None, Blank] = None


class Edit(PromptParameters):
    """Parameters of `images/edits`."""

    input_fidelity: Annotated[Literal["high", "low"] | None, Blank] = None


class VariationRequest(CommonParameters):
    """Parameters of `images/variations`."""


Body = TypeVar("Body", bound=CommonParameters)


@dataclass(frozen=True)
class ImageFiles:
    """The files of a request with images."""

    images: Sequence[bytes]
    """At least one."""
    mask: bytes | None = None


async def read_with_images(request: Request, model: type[Body], limits: Limits) -> tuple[Body, ImageFiles]:
    """Return the parameters and files of a form, or of OpenAI's JSON with images as base64 or data URLs.

    Raises RequestRejected, ValidationError, UnsupportedMedia for other media types, and what `read_object` raises.
    """
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type == JSON:
        content = await read_object(request, with_images=True)
        return model.model_validate(content), await off_loop(lambda: _json_images(content, limits))
    if media_type not in FORMS:
        raise UnsupportedMedia(
            f"the content type {media_type[:100]!r} is not accepted: send multipart/form-data or application/json"
        )
    async with request.form(max_files=2 * MAX_EDIT_IMAGES, max_part_size=2**20) as form:
        body = model.model_validate(form_fields(form, limits))
        images = await _read_uploads(form, limits, "image", "image[]")
        masks = await _read_uploads(form, limits, "mask")
    return body, _check_files(images, masks)


def _check_files(images: Sequence[bytes], masks: Sequence[bytes]) -> ImageFiles:
    """Return the files. Raises RequestRejected for too many of them, and without an image."""
    if not images:
        raise RequestRejected("Missing required parameter: 'image'", "image", "missing_required_parameter")
    if len(images) > MAX_EDIT_IMAGES:
        raise RequestRejected(f"at most {MAX_EDIT_IMAGES} images are allowed", "image")
    if len(masks) > 1:
        raise RequestRejected("at most one mask is allowed", "mask")
    return ImageFiles(images, masks[0] if masks else None)


def _json_images(content: Mapping[str, Any], limits: Limits) -> ImageFiles:
    """Decode the images of a JSON body; blocking. Raises RequestRejected."""
    images = [value for name in ("image", "image[]", "images") if (value := content.get(name))]
    flat = [item for value in images for item in (value if isinstance(value, list) else [value])]
    mask = content.get("mask")
    return _check_files(
        [decode_base64(_base64_of(item, "image"), "image", limits) for item in flat[: MAX_EDIT_IMAGES + 1]],
        [decode_base64(_base64_of(mask, "mask"), "mask", limits)] if mask else [],
    )


def _base64_of(value: Any, param: str) -> str:
    """Return the base64 or data URL of an image in JSON: the text itself, or `image_url` or `b64_json` of an object."""
    if isinstance(value, dict):
        value = value.get("image_url") or value.get("b64_json")
        value = value.get("url") if isinstance(value, dict) else value
    if not isinstance(value, str):
        raise RequestRejected("must be base64 or an object with `image_url`, a data URL; files have no ids here", param)
    return value


async def _read_uploads(form: FormData, limits: Limits, *names: str) -> list[bytes]:
    """Return the files in fields of a form. Raises RequestRejected for text and for too large files."""
    contents = []
    for part in (part for name in names for part in form.getlist(name)):
        if not isinstance(part, UploadFile):
            raise RequestRejected("must be a file", names[0])
        check_size(part.size or 0, names[0], limits)
        contents.append(await part.read())
    return contents


def form_fields(form: FormData, limits: Limits) -> dict[str, Any]:
    """Return a form's text fields; `loras` is parsed as JSON. Raises RequestRejected, NotStorable, TooLarge."""
    values: dict[str, Any] = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    loras = values.pop("loras", "").strip()
    if not loras:
        return values
    try:
        return values | {"loras": decode_text(loras, limits)}
    except json.JSONDecodeError as error:
        raise RequestRejected("must be JSON: a list of objects with `model` and `weight`", "loras") from error
