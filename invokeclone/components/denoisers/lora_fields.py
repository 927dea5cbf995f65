"""LoRAs in the fields of model parts. Loads no model and does not import torch."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.metadata import check_exists, check_type
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

Target = TypeVar("Target", bound=BaseModel)
"""A field with `loras` and a model: a network's or a text encoder's."""
_MODELS = ("unet", "transformer", "text_encoder")
"""Names of the model of such a field."""


class LoRANotApplicable(ValueError):
    """A LoRA cannot be applied to a model: it is already applied, or for another base."""


def with_loras(context: InvocationContext, target: Target | None, loras: Sequence[LoRAField]) -> Target | None:
    """Return a model part with the LoRAs added; None stays None.

    Raises UnknownModel for a LoRA that is not installed, WrongModelType for a model that is not a LoRA, and
    LoRANotApplicable for one that is already applied or for another base.
    """
    for field in loras:
        check_exists(context, field.lora)
        check_type(context, field.lora, ModelType.LoRA)
    if target is None:
        return None
    part: Any = target
    model = next(getattr(part, name) for name in _MODELS if hasattr(part, name))
    applied = list(part.loras)
    for field in loras:
        if any(existing.lora.key == field.lora.key for existing in applied):
            message = f"the LoRA {field.lora.name} is applied twice: remove one of the two from the graph"
            raise LoRANotApplicable(message)
        _check_base(context, field.lora, model)
        applied.append(field)
    return target.model_copy(update={"loras": applied})


def _check_base(context: InvocationContext, lora: ModelIdentifierField, model: ModelIdentifierField) -> None:
    """Raise LoRANotApplicable for a LoRA of another base; a text encoder of its own may serve several bases."""
    lora_base, model_base = context.models.get_config(lora).base, context.models.get_config(model).base
    if model_base not in (lora_base, BaseModelType.Any):
        message = f"the LoRA {lora.name} is for {lora_base} models, but {model.name} is a {model_base} model: select one of the same base"
        raise LoRANotApplicable(message)
