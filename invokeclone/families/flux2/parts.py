"""The parts of a FLUX.2 klein model beside its transformer: selected ones, the main model's own, or other installed models."""

from typing import Any

from invokeclone.components.separate_parts import first_installed, includes
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.metadata import check_exists, check_type
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    Flux2VariantType,
    ModelType,
    Qwen3VariantType,
    SubModelType,
)

_ENCODERS = {
    Flux2VariantType.Klein4B: Qwen3VariantType.Qwen3_4B,
    Flux2VariantType.Klein4BBase: Qwen3VariantType.Qwen3_4B,
    Flux2VariantType.Klein9B: Qwen3VariantType.Qwen3_8B,
    Flux2VariantType.Klein9BBase: Qwen3VariantType.Qwen3_8B,
}
"""The size of Qwen3 that each model was trained with."""


class MissingPart(ValueError):
    """A model needs a part that neither it nor another installed model provides."""


def encoder_source(
    context: InvocationContext,
    main: ModelIdentifierField,
    selected: ModelIdentifierField | None,
    source: ModelIdentifierField | None,
) -> ModelIdentifierField:
    """Return the model with the text encoder: selected, that of another main model, the main model's, or installed.

    Raises MissingPart, UnknownModel and WrongModelType.
    """
    if selected is not None:
        check_exists(context, selected)
        check_type(context, selected, ModelType.Qwen3Encoder)
        return selected
    found = _of_main(context, main, source, SubModelType.TextEncoder)
    if found is not None:
        return found
    wanted = _ENCODERS.get(getattr(context.models.get_config(main.key), "variant", None))

    def fits(record: Any) -> bool:
        return wanted is None or record.variant == wanted

    return _installed(
        context, main, first_installed(context, fits, type=ModelType.Qwen3Encoder), "Qwen3 text encoder", wanted or "",
        "qwen3_encoder_model",
    )  # fmt: skip


def vae_source(
    context: InvocationContext,
    main: ModelIdentifierField,
    selected: ModelIdentifierField | None,
    source: ModelIdentifierField | None,
) -> ModelIdentifierField:
    """Return the model with the VAE: selected, the main model, another main model, or installed.

    Raises MissingPart, UnknownModel and WrongModelType.
    """
    if selected is not None:
        check_exists(context, selected)
        check_type(context, selected, ModelType.VAE)
        return selected
    found = _of_main(context, main, None, SubModelType.VAE) or (
        source if source is not None and includes(context, source, SubModelType.VAE) else None
    )
    if found is not None:
        return found
    separate = first_installed(context, lambda _: True, type=ModelType.VAE, base=BaseModelType.Flux2)
    return _installed(context, main, separate, "VAE of FLUX.2", "", "vae_model")


def _of_main(
    context: InvocationContext,
    main: ModelIdentifierField,
    source: ModelIdentifierField | None,
    part: SubModelType,
) -> ModelIdentifierField | None:
    """Return the `source` or else the main model, if its files include a part."""
    if source is not None:
        check_exists(context, source)
        check_type(context, source, ModelType.Main)
    return next((model for model in (source, main) if model is not None and includes(context, model, part)), None)


def _installed(
    context: InvocationContext,
    main: ModelIdentifierField,
    separate: ModelIdentifierField | None,
    kind: str,
    size: str,
    field: str,
) -> ModelIdentifierField:
    if separate is None:
        named = f"{kind} ({size})" if size else kind
        message = (
            f"{main.name} comes without a {named}: install one (the starter models have it), and select it as {field}"
        )
        raise MissingPart(message)
    context.logger.info(f"{main.name} comes without a {kind}: {separate.name} is used")
    return separate
