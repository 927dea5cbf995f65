"""`AnyModelConfig`: the union of every registered record class.

The classes are read from the registry when a value is validated or the schema is generated, so that adding a class
needs no edit here.
"""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.configs.records_6_8 import RECORDS_6_8
from invokeclone.models.identify import registry


def _by_name(config: type[BaseModel]) -> CoreSchema:
    """Return the core schema of a class as a reference, so that the JSON schema names it instead of inlining it."""
    schema = config.__pydantic_core_schema__
    definitions: list[CoreSchema] = []
    if schema["type"] == "definitions":
        schema, definitions = schema["schema"], schema["definitions"]
    if schema["type"] == "definition-ref":
        return core_schema.definitions_schema(schema, definitions)
    name = f"{config.__module__}.{config.__qualname__}:{id(config)}"
    referenced_schema: Any = {**schema, "ref": name}
    return core_schema.definitions_schema(
        core_schema.definition_reference_schema(name), [*definitions, referenced_schema]
    )


class _AnyRegistered:
    """Annotation that builds the schemas of `AnyModelConfig` from the current registry."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        def dump(config: ModelConfig, info: core_schema.SerializationInfo) -> dict[str, Any]:
            return config.model_dump(mode=info.mode)

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, ModelConfig) else registry.parse(value),
            serialization=core_schema.plain_serializer_function_ser_schema(dump, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        versions = (registry.config_classes(), RECORDS_6_8)
        return {"anyOf": [{"oneOf": [handler(_by_name(config)) for config in classes]} for classes in versions]}


if TYPE_CHECKING:
    AnyModelConfig = ModelConfig
else:
    AnyModelConfig = Annotated[Any, _AnyRegistered()]
    """A record of any registered class: validated by its type, format, base and variant, published as a union.

    The schema includes the classes of InvokeAI 6.8.1: a record matches one class of each version."""
