"""The record of a registered model: what every kind has. `kinds` adds what some have, and families put both together."""

import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelSourceType, ModelType


def new_key() -> str:
    """Return a key for a new record."""
    return str(uuid.uuid4())


def _every_field_is_sent(schema: dict[str, Any]) -> None:
    """Publish every field as present: records are always sent whole."""
    schema["required"] = list(schema["properties"])


def _is_web_address(url: str | None) -> str | None:
    if url is not None and not url.lower().startswith(("http://", "https://")):
        raise ValueError("source_url must begin with http:// or https://")
    return url


SourceUrl = Annotated[str | None, BeforeValidator(lambda url: url or None), AfterValidator(_is_web_address)]
"""The page a model came from; an empty text is null."""


class ModelConfig(BaseModel):
    """What every record has. A family's class fixes `type`, `format` and `base` with one-word literals."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_every_field_is_sent)

    key: str = Field(description="Unique key of the record")
    hash: str = Field(description="Hash of the weights, `<algorithm>:<hex>`")
    path: str = Field(description="Where it lies: relative to the models folder when inside it, otherwise absolute")
    file_size: int = Field(description="Bytes on disk")
    name: str = Field(description="Name shown to people")
    description: str | None = Field(default=None, description="What it is, in words")
    source: str = Field(description="The path, address or repository it was installed from")
    source_type: ModelSourceType = Field(description="What kind of place the source is")
    source_api_response: str | None = Field(default=None, description="What the source's service said of it, as JSON")
    source_url: SourceUrl = Field(default=None, description="Web page of the model")
    cover_image: str | None = Field(default=None, description="Address of its picture, null without one")
    type: ModelType
    format: ModelFormat
    base: BaseModelType


class Unknown_Config(ModelConfig):  # noqa: N801  (the wire's name)
    """A file or folder that may be a model and that no rule knows."""

    type: Literal[ModelType.Unknown] = ModelType.Unknown
    format: Literal[ModelFormat.Unknown] = ModelFormat.Unknown
    base: Literal[BaseModelType.Unknown] = BaseModelType.Unknown
