"""Lookup of values and models in image metadata, for nodes."""

from typing import Any

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

CUSTOM_LABEL = "* CUSTOM LABEL *"
"""The label that makes a node read the label from its field `custom_label`."""


class UnknownModel(ValueError):
    """A node refers to a model without a record."""


class WrongModelType(ValueError):
    """A node refers to a model of an unsuitable type."""


class WrongModelBase(ValueError):
    """A node refers to a model of an unsuitable base."""


def check_exists(context: InvocationContext, model: ModelIdentifierField) -> None:
    """Raise UnknownModel if the model has no record."""
    if not context.models.exists(model.key):
        message = f"Unknown model: {model.name} ({model.key})"
        raise UnknownModel(message)


def check_type(context: InvocationContext, model: ModelIdentifierField, expected: ModelType) -> None:
    """Raise WrongModelType if the model's record is not of the `expected` type."""
    if (model_type := context.models.get_config(model.key).type) != expected:
        message = f"{model.name} is a model of type {model_type}: select one of type {expected}"
        raise WrongModelType(message)


def check_base(record: Any, expected: BaseModelType) -> None:
    """Raise WrongModelBase if the record's base is not the `expected` one."""
    if record.base != expected:
        message = f"{record.name} is a {record.base} model: this node needs one of base {expected}"
        raise WrongModelBase(message)


def get_metadata_value(metadata: MetadataField | None, label: str, custom_label: str | None, default: Any) -> Any:
    """Return the value of a label, or the default."""
    values = metadata.root if metadata else {}
    return values.get(str(custom_label if label == CUSTOM_LABEL else label), default)


def get_metadata_values(
    metadata: MetadataField | None, label: str, custom_label: str | None, default: list[Any]
) -> list[Any]:
    """Return the values of a label (a single value as a list), or the default."""
    value = get_metadata_value(metadata, label, custom_label, default)
    return value if isinstance(value, list) else [value]


def get_metadata_model(context: InvocationContext, value: Any) -> ModelIdentifierField:
    """Return the model that a metadata value identifies. Raises UnknownModel if it is not installed."""
    model = ModelIdentifierField.model_validate(value.model_dump() if hasattr(value, "model_dump") else value)
    check_exists(context, model)
    return model


def get_metadata_loras(
    context: InvocationContext, metadata: MetadataField | None, label: str = "loras"
) -> list[LoRAField]:
    """Return the installed LoRAs listed in metadata; log a warning for each LoRA that is not installed."""
    loras = []
    for record in (metadata.root if metadata else {}).get(label) or []:
        lora = ModelIdentifierField.model_validate(record.get("model") or record.get("lora"))
        if context.models.exists(lora.key):
            loras.append(LoRAField(lora=lora, weight=record["weight"]))
        else:
            context.logger.warning(f"LoRA {lora.name} is not installed and is skipped")
    return loras
