"""Request bodies of Gemini's methods; fields are read in camelCase and in snake_case, as Google's own server does."""

from typing import Annotated, Any, Literal

from pydantic import AliasGenerator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from invokeclone.kit.config.limits import Limits
from invokeclone.queue.generation import SEEDS, LoRAChoice
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.shims.image_io import Format, decode_base64

ASPECTS = {
    "1:1": (1, 1),
    "2:3": (2, 3),
    "3:2": (3, 2),
    "3:4": (3, 4),
    "4:3": (4, 3),
    "4:5": (4, 5),
    "5:4": (5, 4),
    "9:16": (9, 16),
    "16:9": (16, 9),
    "21:9": (21, 9),
}
MAX_IMAGES = 16
"""Maximum number of images in a message."""
FORMATS: dict[str, Format] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}

Aspect = Literal["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]


class CamelCaseModel(BaseModel):
    """Base of request objects; unknown fields are ignored."""

    model_config = ConfigDict(
        extra="ignore", alias_generator=AliasGenerator(validation_alias=to_camel), populate_by_name=True
    )


def _to_snake_case(value: Any) -> Any:
    """Return LoRAs with their field names in snake_case."""
    if not isinstance(value, list):
        return value
    names = {"textWeight": "text_weight"}
    return [{names.get(k, k): v for k, v in item.items()} if isinstance(item, dict) else item for item in value]


LoRAs = Annotated[list[LoRAChoice], BeforeValidator(_to_snake_case)]
"""LoRAs to apply, an extension of Google's API."""


class OutputOptions(CamelCaseModel):
    """Format of the files."""

    mime_type: Literal["image/png", "image/jpeg", "image/webp"] = "image/png"
    compression_quality: Annotated[int, Field(ge=0, le=100)] | None = None


class Parameters(CamelCaseModel):
    """Parameters of `:predict`."""

    sample_count: Count = 1
    aspect_ratio: Aspect | None = None
    negative_prompt: str = ""
    seed: Seed | None = None
    output_options: OutputOptions = OutputOptions()
    loras: LoRAs = []


class Instance(CamelCaseModel):
    """Prompt of `:predict`."""

    prompt: Annotated[str, Field(min_length=1)]
    image: Any = None
    """An initial image, which Imagen's editing models take; it is rejected."""


def _single_instance(value: Any) -> Any:
    """Return the single instance: Google's API takes a list, Open WebUI sends an object."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class Predict(CamelCaseModel):
    """Body of `:predict`."""

    instances: Annotated[Instance, BeforeValidator(_single_instance)]
    parameters: Parameters = Parameters()


class Blob(CamelCaseModel):
    """An image in base64; its `mimeType` is ignored."""

    data: str


class ContentPart(CamelCaseModel):
    """A text or an image of a message."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: Any = None


class Content(CamelCaseModel):
    """A message."""

    role: str | None = None
    parts: list[ContentPart] = Field(default=[], max_length=256)


class ImageConfig(CamelCaseModel):
    """Aspect ratio of the image."""

    aspect_ratio: Aspect | None = None


class GenerationConfig(CamelCaseModel):
    """Parameters of `:generateContent`."""

    candidate_count: Count = 1
    seed: Seed | None = None
    image_config: ImageConfig = ImageConfig()
    loras: LoRAs = []


def _as_list(value: Any) -> Any:
    """Return a list of contents; a single one may be sent without a list."""
    return [value] if isinstance(value, dict) else value


class GenerateContent(CamelCaseModel):
    """Body of `:generateContent`; a system instruction is ignored."""

    contents: Annotated[list[Content], BeforeValidator(_as_list), Field(min_length=1, max_length=256)]
    generation_config: GenerationConfig = GenerationConfig()

    @property
    def last_user_content(self) -> Content:
        """The last message of the user. Raises RequestRejected if there is none."""
        return self.contents[self._last_user_index]

    @property
    def _last_user_index(self) -> int:
        for index in reversed(range(len(self.contents))):
            if self.contents[index].role != "model":
                return index
        raise RequestRejected("there must be a message of the user", "contents")

    @property
    def prompt(self) -> str:
        """The texts of the last user message, joined. Raises RequestRejected if there are none."""
        text = "\n".join(part.text for part in self.last_user_content.parts if part.text)
        if not text.strip():
            raise RequestRejected("the last message of the user must have a text", "contents")
        return text

    def image_files(self, limits: Limits) -> list[bytes]:
        """Return the images of the last user message; without any, those of the message before it; blocking.

        Raises RequestRejected for file references and too many images.
        """
        last = self._last_user_index
        for content in self.contents[max(0, last - 1) : last + 1][::-1]:
            if any(part.file_data for part in content.parts):
                raise RequestRejected("files must be sent as inlineData; URLs are not fetched", "contents")
            blobs = [part.inline_data for part in content.parts if part.inline_data]
            if len(blobs) > MAX_IMAGES:
                raise RequestRejected(f"at most {MAX_IMAGES} images are allowed", "contents")
            if blobs:
                return [decode_base64(blob.data, "contents", limits) for blob in blobs]
        return []
