"""The parts of a FLUX.2 klein model beside its transformer: selected ones, the main model's own, or other installed models."""

from typing import Any

from invokeclone.components.separate_parts import MissingPart, first_installed, includes
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
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
_SOURCES: dict[str, str] = {
    Qwen3VariantType.Qwen3_4B: "black-forest-labs/FLUX.2-klein-4B::text_encoder+tokenizer",
    Qwen3VariantType.Qwen3_8B: "black-forest-labs/FLUX.2-klein-9B::text_encoder+tokenizer",
    SubModelType.VAE: "black-forest-labs/FLUX.2-klein-4B::vae",
}
"""Where a part can be installed from."""


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
    provider = _of_main(context, main, source, SubModelType.TextEncoder)
    if provider is not None:
        return provider
    variant: Any = getattr(context.models.get_config(main.key), "variant", None)
    encoder_variant = _ENCODERS.get(variant, Qwen3VariantType.Qwen3_4B)
    separate = first_installed(context, lambda record: record.variant == encoder_variant, type=ModelType.Qwen3Encoder)
    if separate is None:
        raise MissingPart(
            main.name, f"Qwen3 text encoder ({encoder_variant})", _SOURCES[encoder_variant], "qwen3_encoder_model"
        )
    return _announce(context, main, separate, "Qwen3 text encoder")


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
    provider = _of_main(context, main, None, SubModelType.VAE) or (
        source if source is not None and includes(context, source, SubModelType.VAE) else None
    )
    if provider is not None:
        return provider
    separate = first_installed(context, lambda _: True, type=ModelType.VAE, base=BaseModelType.Flux2)
    if separate is None:
        raise MissingPart(main.name, "VAE of FLUX.2", _SOURCES[SubModelType.VAE], "vae_model")
    return _announce(context, main, separate, "VAE of FLUX.2")


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
        check_base(context.models.get_config(source.key), BaseModelType.Flux2)
    return next((model for model in (source, main) if model is not None and includes(context, model, part)), None)


def _announce(
    context: InvocationContext, main: ModelIdentifierField, separate: ModelIdentifierField, kind: str
) -> ModelIdentifierField:
    context.logger.info(f"{main.name} comes without a {kind}: {separate.name} is used")
    return separate
