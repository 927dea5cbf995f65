"""Application of the LoRAs of a field to a loaded network or text encoder."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from invokeclone.engine.loaded import device_of
from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.model_fields import LoRAField

_TEXT_PREFIX = "text_model_"
"""Prefix of text encoder layers in files; transformers' CLIPTextModel has no such module."""


@contextmanager
def patch_loras(context: InvocationContext, loras: Sequence[LoRAField], model: Any, part: str) -> Iterator[None]:
    """Apply LoRAs to a loaded model inside the block; `part` is the part of their files that belongs to it.

    Raises ValueError for a file that cannot be read, or that matches no layer of the model.
    """
    active = [field for field in loras if field.weight]
    if not active:
        yield
        return
    with ExitStack() as stack:
        infos = [context.models.load(field.lora) for field in active]
        device = device_of(infos[0], model)
        changes = [
            LoRAPatch(field.lora.name, stack.enter_context(info).parts.get(part, {}), field.weight)
            for field, info in zip(active, infos, strict=True)
        ]
        stack.enter_context(apply_loras(model, changes, device, optional_prefix=_TEXT_PREFIX))
        yield
