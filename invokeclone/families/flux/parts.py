"""The parts of a FLUX.1 model beside its transformer: selected ones, the main model's own, or other installed models."""

from typing import Any

from invokeclone.components.separate_parts import MissingPart, first_installed, includes
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.metadata import check_exists
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    ClipVariantType,
    ModelFormat,
    ModelType,
    SubModelType,
)
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles

_KINDS: dict[SubModelType, tuple[dict[str, Any], str, str]] = {
    SubModelType.TextEncoder: (
        {"type": ModelType.CLIPEmbed},
        "CLIP-L text encoder",
        "openai/clip-vit-large-patch14 as type clip_embed",
    ),
    SubModelType.TextEncoder2: ({"type": ModelType.T5Encoder}, "T5 encoder", "InvokeAI/t5-v1_1-xxl::bfloat16"),
    SubModelType.VAE: (
        {"type": ModelType.VAE, "base": BaseModelType.Flux},
        "VAE of FLUX.1",
        "black-forest-labs/FLUX.1-schnell::ae.safetensors",
    ),
}
"""What a separate model of each part is, its name, and where one can be installed from."""

BUNDLED_PARTS = {
    SubModelType.TextEncoder: "text_encoders.clip_l.transformer.",
    SubModelType.Tokenizer: "text_encoders.clip_l.transformer.",
    SubModelType.TextEncoder2: "text_encoders.t5xxl.transformer.",
    SubModelType.VAE: "vae.",
}
"""Prefixes of the other parts' tensors in ComfyUI's bundles. T5's tokenizer is that of another model."""


class UnreadableModel(ValueError):
    """A main model's file does not exist any more, or is damaged."""


def source_of(
    context: InvocationContext,
    main: ModelIdentifierField,
    selected: ModelIdentifierField | None,
    part: SubModelType,
    field: str,
) -> ModelIdentifierField:
    """Return the model that provides a part; `field` is the node's input that selects it.

    Without a selection it is the main model if its files include the part, else the first installed model of the
    kind by name. The type of a selected model is not checked. Raises MissingPart, UnreadableModel, UnknownModel, and
    ValueError for a CLIP text encoder of another size.
    """
    if selected is not None:
        check_exists(context, selected)
        if not _is_suitable(context.models.get_config(selected.key)):
            raise ValueError(
                f"{selected.name} is not a {_KINDS[part][1]}, which FLUX.1 needs as {field}: select another"
            )
        return selected
    if includes(context, main, part) or _is_bundled(context, main, part):
        return main
    separate = first_installed(context, _is_suitable, **_KINDS[part][0])
    if separate is None:
        _, kind, source = _KINDS[part]
        raise MissingPart(main.name, kind, source, field)
    context.logger.info(f"{main.name} comes without a {_KINDS[part][1]}: {separate.name} is used")
    return separate


def _is_bundled(context: InvocationContext, main: ModelIdentifierField, part: SubModelType) -> bool:
    """Return whether a main model is a single file that also has the tensors of a part."""
    record, prefix = context.models.get_config(main.key), BUNDLED_PARTS.get(part)
    if record.format != ModelFormat.Checkpoint or prefix is None:
        return False
    try:
        return ModelFiles(context.models.get_absolute_path(record)).has_prefix(prefix)
    except (OSError, InvalidModel) as error:
        raise UnreadableModel(
            f"{record.name} cannot be read, its file is missing or damaged: install it again ({error})"
        ) from error


def _is_suitable(record: Any) -> bool:
    return bool(record.type != ModelType.CLIPEmbed or record.variant == ClipVariantType.L)
