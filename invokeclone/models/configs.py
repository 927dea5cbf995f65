"""The record of a registered model: what every kind has, and the pieces that families put their own classes together from.

`AnyModelConfig` is the union of every registered class. It is looked up when a value is validated or the schema is
published, so adding a class needs no edit here; it refuses to know any family.
"""

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from invokeclone.graph.taxonomy import (
    BaseModelType,
    ModelFormat,
    ModelRepoVariant,
    ModelSourceType,
    ModelType,
    ModelVariantType,
    SchedulerPredictionType,
)
from invokeclone.models.defaults import MainModelDefaultSettings, TriggerPhrases


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


class CheckpointFile(BaseModel):
    """A single file of weights."""

    config_path: str | None = Field(default=None, description="Configuration file to load it with")


class DiffusersFolder(BaseModel):
    """A folder as diffusers and transformers save it."""

    repo_variant: ModelRepoVariant = Field(default=ModelRepoVariant.Default, description="Variant of the weight files")


class MainModel(BaseModel):
    """A model that makes pictures by itself."""

    type: Literal[ModelType.Main] = ModelType.Main
    trigger_phrases: TriggerPhrases | None = Field(default=None, description="Words that it was trained to answer to")
    default_settings: MainModelDefaultSettings | None = Field(default=None, description="What to start from")


class StableDiffusionModel(MainModel):
    """A main model with the UNet of Stable Diffusion 1, 2 or XL."""

    prediction_type: SchedulerPredictionType = Field(description="What the UNet predicts")
    variant: ModelVariantType = Field(description="What the UNet takes besides noise and text")


class VAEModel(BaseModel):
    """An autoencoder between pixels and latents."""

    type: Literal[ModelType.VAE] = ModelType.VAE
    cpu_only: bool | None = Field(default=None, description="Run it on the CPU")


class Unknown_Config(ModelConfig):  # noqa: N801  (the wire's name)
    """A file or folder that may be a model and that no rule knows."""

    type: Literal[ModelType.Unknown] = ModelType.Unknown
    format: Literal[ModelFormat.Unknown] = ModelFormat.Unknown
    base: Literal[BaseModelType.Unknown] = BaseModelType.Unknown


def _by_name(config: type[ModelConfig]) -> CoreSchema:
    """Return the class's core schema in the form that is published under its name instead of being written out."""
    schema = config.__pydantic_core_schema__
    shared: list[CoreSchema] = []
    if schema["type"] == "definitions":
        schema, shared = schema["schema"], schema["definitions"]
    if schema["type"] == "definition-ref":
        return core_schema.definitions_schema(schema, shared)
    name = f"{config.__module__}.{config.__qualname__}:{id(config)}"
    named: Any = {**schema, "ref": name}
    return core_schema.definitions_schema(core_schema.definition_reference_schema(name), [*shared, named])


class _AnyRegistered:
    """Makes `AnyModelConfig` of whatever the registry holds at the time of asking."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        from invokeclone.models import registry

        def dump(config: ModelConfig, info: core_schema.SerializationInfo) -> dict[str, Any]:
            return config.model_dump(mode=info.mode)

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, ModelConfig) else registry.parse(value),
            serialization=core_schema.plain_serializer_function_ser_schema(dump, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        from invokeclone.models import registry

        return {"oneOf": [handler(_by_name(config)) for config in registry.config_classes()]}


if TYPE_CHECKING:
    AnyModelConfig = ModelConfig
else:
    AnyModelConfig = Annotated[Any, _AnyRegistered()]
    """A record of any registered class: validated by its type, format and base, published as the union of them all."""
