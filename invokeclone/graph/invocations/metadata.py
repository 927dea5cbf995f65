"""Values and models that image metadata records, found again by nodes."""

from typing import Any

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import ModelType

CUSTOM_LABEL = "* CUSTOM LABEL *"
"""The choice of a node that takes the label from its field `custom_label`."""


class UnknownModel(ValueError):
    """A node names a model that has no record."""


class WrongModelType(ValueError):
    """A node names a model of a type that it cannot use."""


def check_exists(context: InvocationContext, model: ModelIdentifierField) -> None:
    """Raise UnknownModel when there is no record of the model."""
    if not context.models.exists(model.key):
        message = f"Unknown model: {model.name} ({model.key})"
        raise UnknownModel(message)


def check_type(context: InvocationContext, model: ModelIdentifierField, expected: ModelType) -> None:
    """Raise WrongModelType when the record of the model is of another type."""
    if (model_type := context.models.get_config(model.key).type) != expected:
        message = f"{model.name} is a model of type {model_type}: select one of type {expected}"
        raise WrongModelType(message)


def get_metadata_value(metadata: MetadataField | None, label: str, custom_label: str | None, default: Any) -> Any:
    """Return the value under a label, or the default."""
    values = metadata.root if metadata else {}
    return values.get(str(custom_label if label == CUSTOM_LABEL else label), default)


def get_metadata_values(
    metadata: MetadataField | None, label: str, custom_label: str | None, default: list[Any]
) -> list[Any]:
    """Return the values under a label, a single one as a list, or the default."""
    value = get_metadata_value(metadata, label, custom_label, default)
    return value if isinstance(value, list) else [value]


def get_metadata_model(context: InvocationContext, value: Any) -> ModelIdentifierField:
    """Return the model that metadata names; raises UnknownModel when it is not installed."""
    model = ModelIdentifierField.model_validate(value.model_dump() if hasattr(value, "model_dump") else value)
    check_exists(context, model)
    return model


def get_metadata_loras(
    context: InvocationContext, metadata: MetadataField | None, label: str = "loras"
) -> list[LoRAField]:
    """Return the LoRAs that metadata names, but for those that are not installed."""
    loras = []
    for record in (metadata.root if metadata else {}).get(label) or []:
        lora = ModelIdentifierField.model_validate(record.get("model") or record.get("lora"))
        if context.models.exists(lora.key):
            loras.append(LoRAField(lora=lora, weight=record["weight"]))
        else:
            context.logger.warning(f"LoRA {lora.name} is not installed and is left out")
    return loras
