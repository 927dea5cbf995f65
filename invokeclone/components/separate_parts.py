"""Parts that a main model may lack and another installed model has, such as T5 encoders."""

from collections.abc import Callable
from typing import Any

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import ModelFormat, SubModelType


class MissingPart(ValueError):
    """A model needs a part that neither it nor another installed model provides."""

    def __init__(self, model: str, kind: str, source: str, field: str) -> None:
        """Take the names of model and part, where one can be installed from, and the node's input that selects it."""
        super().__init__(
            f"{model} comes without a {kind}: install one, for example {source} (the starter models have it), and "
            f"select it as {field}"
        )


def includes(context: InvocationContext, main: ModelIdentifierField, part: SubModelType) -> bool:
    """Return whether a main model is a folder that includes a part."""
    record = context.models.get_config(main.key)
    if record.format not in (ModelFormat.Diffusers, ModelFormat.SDNQQuantized):
        return False
    return bool((context.models.get_absolute_path(record) / str(part)).is_dir())


def first_installed(
    context: InvocationContext, is_suitable: Callable[[Any], bool], **attributes: Any
) -> ModelIdentifierField | None:
    """Return the first model by name with these attributes of its record, None if there is none."""
    candidates = [record for record in context.models.search_by_attrs(**attributes) if is_suitable(record)]
    if not candidates:
        return None
    record = min(candidates, key=lambda candidate: (candidate.name, candidate.key))
    return ModelIdentifierField(key=record.key, hash=record.hash, name=record.name, base=record.base, type=record.type)
