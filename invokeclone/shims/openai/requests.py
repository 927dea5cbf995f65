"""What clients send to the Images API, checked, and what it means for a generation.

Members that OpenAI doesn't have but other clients of this dialect send (`negative_prompt`, `seed`, `steps`, `cfg_scale`,
`scheduler`, `loras`) are read too; members that nobody knows are left alone, as OpenAI's own server does with many.
"""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from starlette.datastructures import FormData, UploadFile

from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.json_text import decode_text
from invokeclone.queue.generation import SEEDS, LoRAChoice
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.shims.image_io import Format, check_size

MAX_EDIT_IMAGES = 16
"""Images that OpenAI's own API takes to edit."""
NO_MODEL = re.compile(r"(dall-e|gpt-image|chatgpt-image|gpt-)", re.IGNORECASE)
"""Names of OpenAI's own models, which many clients send without asking anybody: they mean the default model."""
_SIZE = re.compile(r"(\d{1,6})\s*[xX×]\s*(\d{1,6})")

Quality = Literal["auto", "low", "medium", "high", "standard", "hd", "xhigh", "max"]
STEP_FACTORS: dict[Quality, float] = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.5}
"""How many steps a quality takes, in those that the model's settings state; the others take just these."""
STYLE_GUIDANCE = {"vivid": 1.2, "natural": 0.8}
"""How strongly a style follows the prompt, in the guidance scale that the model's settings state."""


def _blank_to_none(value: Any) -> Any:
    """Take an empty text for nothing: forms send one for what is left open."""
    return None if isinstance(value, str) and not value.strip() else value


Blank = BeforeValidator(_blank_to_none)


def model_name_of(name: str | None) -> str | None:
    """Return the model that a name means; None: the default."""
    return None if name is None or NO_MODEL.match(name) else name


class CommonParameters(BaseModel):
    """What all three routes take."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: Annotated[str | None, Blank] = None
    n: Annotated[int | None, Field(ge=1), Blank] = None
    size: Annotated[str | None, Blank] = None
    response_format: Annotated[Literal["url", "b64_json"] | None, Blank] = None
    seed: Annotated[int | None, Field(ge=0, lt=SEEDS), Blank] = None
    steps: Annotated[int | None, Field(ge=1, le=1000), Blank] = None
    cfg_scale: Annotated[float | None, Field(ge=1, le=100), Blank] = None
    scheduler: Annotated[SCHEDULER_NAME_VALUES | None, Blank] = None
    negative_prompt: str = ""
    loras: list[LoRAChoice] = []

    @property
    def count(self) -> int:
        """How many pictures."""
        return self.n or 1

    @field_validator("size")
    @classmethod
    def _validate_size(cls, value: str | None) -> str | None:
        if value is not None and value != "auto" and not _SIZE.fullmatch(value):
            raise ValueError("must be 'auto' or WIDTHxHEIGHT in pixels, as 1024x1024")
        return value

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height in pixels; None: resolved here."""
        match = _SIZE.fullmatch(self.size) if self.size else None
        return (int(match[1]), int(match[2])) if match else None


class PromptParameters(CommonParameters):
    """What the two routes with a prompt take."""

    prompt: str = Field(min_length=1)
    quality: Annotated[Quality, Blank] = "auto"
    output_format: Annotated[Format | None, Blank] = None
    output_compression: Annotated[int | None, Field(ge=0, le=100), Blank] = None
    background: Annotated[Literal["transparent", "opaque", "auto"] | None, Blank] = None
    stream: Annotated[bool | None, Blank] = None
    partial_images: Annotated[int | None, Field(ge=0, le=3), Blank] = None

    @field_validator("background")
    @classmethod
    def _validate_background(cls, value: str | None) -> str | None:
        if value == "transparent":
            raise ValueError("transparent backgrounds cannot be made; use opaque or auto")
        return value

    @property
    def format(self) -> Format:
        """The format of the files."""
        return self.output_format or "png"

    @property
    def step_factor(self) -> float:
        """How many of the usual steps the quality takes."""
        return STEP_FACTORS.get(self.quality, 1.0)


class Generation(PromptParameters):
    """Pictures of a prompt."""

    style: Annotated[Literal["vivid", "natural"] | None, Blank] = None


class Edit(PromptParameters):
    """Pictures of a prompt and a picture."""

    input_fidelity: Annotated[Literal["high", "low"] | None, Blank] = None


class VariationRequest(CommonParameters):
    """Pictures like a picture."""


async def read_uploads(form: FormData, limits: Limits, *names: str) -> list[bytes]:
    """Return the files of a form under these names. Raises Refused for text in their place, and for too many or too large ones."""
    parts = [part for name in names for part in form.getlist(name)]
    if len(parts) > MAX_EDIT_IMAGES:
        raise RequestRejected(f"at most {MAX_EDIT_IMAGES} pictures", names[0])
    contents = []
    for part in parts:
        if not isinstance(part, UploadFile):
            raise RequestRejected("must be a file", names[0])
        check_size(part.size or 0, names[0], limits)
        contents.append(await part.read())
    return contents


def form_fields(form: FormData, limits: Limits) -> dict[str, Any]:
    """Return a form's fields that are not files; `loras` is JSON. Raises Refused, NotStorable, TooLarge."""
    values: dict[str, Any] = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    loras = values.pop("loras", "").strip()
    if not loras:
        return values
    try:
        return values | {"loras": decode_text(loras, limits)}
    except json.JSONDecodeError as error:
        raise RequestRejected("must be JSON: a list of objects with `model` and `weight`", "loras") from error
