"""Textual inversions that prompts reference, as <name>, applied to the text encoders of Stable Diffusion."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from invokeclone.components.clip.textual_inversion import with_inversions
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

_TRIGGER = re.compile(r"<(?P<name>[a-zA-Z0-9., _-]+)>")


@contextmanager
def with_embeddings(
    context: InvocationContext, prompt: str, tokenizer: Any, text_encoder: Any, base: BaseModelType
) -> Iterator[Any]:
    """Yield a tokenizer for the prompt, while the text encoder has the textual inversions that the prompt references.

    A trigger contains a model's key or name. Triggers of models that are not installed, or for another base, remain
    plain text and are logged. Raises ValueError for files that cannot be read, or vectors of another width.
    """
    records = _find_inversions(context, prompt, base)
    if not records:
        yield tokenizer
        return
    width = text_encoder.get_input_embeddings().weight.shape[1]
    with ExitStack() as stack:
        vectors = {}
        for trigger, record in records.items():
            inversion = stack.enter_context(context.models.load(record.key))
            matching = inversion.of_width(width)
            vectors[trigger] = inversion.vectors[0] if matching is None else matching
        yield stack.enter_context(with_inversions(tokenizer, text_encoder, vectors))


def _find_inversions(context: InvocationContext, prompt: str, base: BaseModelType) -> dict[str, Any]:
    """Return the records of the textual inversions that a prompt references, by trigger."""
    records = {}
    for match in dict.fromkeys(_TRIGGER.findall(prompt)):
        record = _record(context, match, base)
        if record is not None:
            records[f"<{match}>"] = record
    return records


def _record(context: InvocationContext, name: str, base: BaseModelType) -> Any:
    if context.models.exists(name):
        record = context.models.get_config(name)
        if record.type == ModelType.TextualInversion and record.base == base:
            return record
        context.logger.warning(
            f"<{name}> is treated as text: {record.name} is not an embedding for {base} but of type {record.type} for {record.base}"
        )
        return None
    if matches := context.models.search_by_attrs(name=name, base=base, type=ModelType.TextualInversion):
        return matches[0]
    other_matches = context.models.search_by_attrs(name=name, type=ModelType.TextualInversion)
    reason = (
        f"the embedding of this name is for {other_matches[0].base} models"
        if other_matches
        else "no embedding has this name"
    )
    context.logger.warning(f"<{name}> is treated as text: {reason}")
    return None
