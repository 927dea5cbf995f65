"""The fields common to all model records; `kinds` has those of individual kinds."""

import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelSourceType, ModelType


def new_key() -> str:
    """Return a key for a new record, a random UUID."""
    return str(uuid.uuid4())


def _every_field_is_sent(schema: dict[str, Any]) -> None:
    """Mark every field as required in the schema: responses always contain all fields."""
    schema["required"] = list(schema["properties"])


def _is_web_address(url: str | None) -> str | None:
    if url is not None and not url.lower().startswith(("http://", "https://")):
        raise ValueError("source_url must start with http:// or https://")
    return url


SourceUrl = Annotated[str | None, BeforeValidator(lambda url: url or None), AfterValidator(_is_web_address)]
"""URL of a model's web page; an empty string becomes None."""


class ModelConfig(BaseModel):
    """The fields common to all records. Record classes fix `type`, `format` and `base` with literals."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_every_field_is_sent)

    key: str = Field(description="Unique key of the record")
    hash: str = Field(description="Hash of the weights, `<algorithm>:<hex>`")
    path: str = Field(description="Path: relative to the models folder if inside it, otherwise absolute")
    file_size: int = Field(description="Size on disk in bytes")
    name: str = Field(description="Display name")
    description: str | None = Field(default=None, description="Description of the model")
    source: str = Field(description="Path, URL or repository the model was installed from")
    source_type: ModelSourceType = Field(description="Type of the source")
    source_api_response: str | None = Field(
        default=None, description="Response of the source's API about the model, as JSON"
    )
    source_url: SourceUrl = Field(default=None, description="Web page of the model")
    cover_image: str | None = Field(default=None, description="URL of the image, or null")
    type: ModelType
    format: ModelFormat
    base: BaseModelType


class Unknown_Config(ModelConfig):  # noqa: N801  (name in the API)
    """A file or folder that may be a model but matches no rule."""

    type: Literal[ModelType.Unknown] = ModelType.Unknown
    format: Literal[ModelFormat.Unknown] = ModelFormat.Unknown
    base: Literal[BaseModelType.Unknown] = BaseModelType.Unknown
