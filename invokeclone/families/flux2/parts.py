"""The parts of a FLUX.2 model beside its transformer: selected ones, the main model's own, or other installed models."""

from dataclasses import dataclass
from typing import Any

from invokeclone.components.separate_parts import MissingPart, first_installed, includes
from invokeclone.components.text_encoders.tokenizer_sources import tokenizer_source
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


@dataclass(frozen=True)
class _EncoderKind:
    """The text encoder that a model was trained with, as a separate model."""

    type: ModelType
    variant: str | None
    """None: any."""
    name: str
    source: str
    """Where one can be installed from."""
    field: str
    """Input of the model loader that selects one."""

    def is_suitable(self, record: Any) -> bool:
        return self.variant is None or bool(record.variant == self.variant)


def _qwen3(variant: Qwen3VariantType, source: str) -> _EncoderKind:
    name = f"Qwen3 text encoder ({variant})"
    return _EncoderKind(ModelType.Qwen3Encoder, variant, name, source, "qwen3_encoder_model")


_QWEN3_4B = _qwen3(Qwen3VariantType.Qwen3_4B, "Qwen/Qwen3-4B-GGUF::Qwen3-4B-Q8_0.gguf")
_QWEN3_8B = _qwen3(Qwen3VariantType.Qwen3_8B, "Qwen/Qwen3-8B-GGUF::Qwen3-8B-Q8_0.gguf")
_MISTRAL = _EncoderKind(
    ModelType.MistralEncoder,
    None,
    "Mistral text encoder",
    "unsloth/Mistral-Small-3.2-24B-Instruct-2506-GGUF::Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M.gguf",
    "mistral_encoder_model",
)
_ENCODERS = {
    Flux2VariantType.Klein4B: _QWEN3_4B,
    Flux2VariantType.Klein4BBase: _QWEN3_4B,
    Flux2VariantType.Klein9B: _QWEN3_8B,
    Flux2VariantType.Klein9BBase: _QWEN3_8B,
    Flux2VariantType.Dev: _MISTRAL,
}
_VAE_SOURCE = "black-forest-labs/FLUX.2-klein-4B::vae"


@dataclass(frozen=True)
class Parts:
    """The models that provide the parts of a FLUX.2 model."""

    text_encoder: ModelIdentifierField
    tokenizer: ModelIdentifierField
    vae: ModelIdentifierField


def find_parts(
    context: InvocationContext,
    main: ModelIdentifierField,
    encoder: ModelIdentifierField | None,
    vae: ModelIdentifierField | None,
    source: ModelIdentifierField | None,
    *,
    dev: bool,
) -> Parts:
    """Return the parts of a main model, of which `encoder` and `vae` may be selected; `source` is another main model.

    Models must be FLUX.2 dev, or with `dev` false klein. Raises MissingPart, UnknownModel, WrongModelType, WrongModelBase,
    and ValueError for a model of the other kind.
    """
    mains = [model for model in (source, main) if model is not None]
    for model in mains:
        _check_main(context, model, dev=dev)
    text_encoder = _encoder_source(context, main, mains, encoder)
    tokenizer = tokenizer_source(context, text_encoder, mains)
    return Parts(text_encoder, tokenizer, _vae_source(context, main, vae, source))


def _check_main(context: InvocationContext, model: ModelIdentifierField, *, dev: bool) -> None:
    check_exists(context, model)
    check_type(context, model, ModelType.Main)
    record = context.models.get_config(model.key)
    check_base(record, BaseModelType.Flux2)
    if (getattr(record, "variant", None) == Flux2VariantType.Dev) != dev:
        node, kind = ("flux2_dev_model_loader", "klein") if dev else ("flux2_klein_model_loader", "dev")
        other = f"flux2_{kind}_model_loader"
        message = f"{model.name} is a FLUX.2 {kind} model, which {node} does not load: use {other}, or select another"
        raise ValueError(message)


def _encoder_source(
    context: InvocationContext,
    main: ModelIdentifierField,
    mains: list[ModelIdentifierField],
    selected: ModelIdentifierField | None,
) -> ModelIdentifierField:
    """Return the model with the text encoder: selected, a main model, or installed."""
    variant: Any = getattr(context.models.get_config(main.key), "variant", None)
    kind = _ENCODERS.get(variant, _QWEN3_4B)
    if selected is not None:
        check_exists(context, selected)
        check_type(context, selected, kind.type)
        return selected
    if provider := next((model for model in mains if includes(context, model, SubModelType.TextEncoder)), None):
        return provider
    separate = first_installed(context, kind.is_suitable, type=kind.type)
    if separate is None:
        raise MissingPart(main.name, kind.name, kind.source, kind.field)
    return _announce(context, main, separate, kind.name)


def _vae_source(
    context: InvocationContext,
    main: ModelIdentifierField,
    selected: ModelIdentifierField | None,
    source: ModelIdentifierField | None,
) -> ModelIdentifierField:
    """Return the model with the VAE: selected, the main model, another main model, or installed."""
    if selected is not None:
        check_exists(context, selected)
        check_type(context, selected, ModelType.VAE)
        return selected
    mains = [model for model in (main, source) if model is not None]
    if provider := next((model for model in mains if includes(context, model, SubModelType.VAE)), None):
        return provider
    separate = first_installed(context, lambda _: True, type=ModelType.VAE, base=BaseModelType.Flux2)
    if separate is None:
        raise MissingPart(main.name, "VAE of FLUX.2", _VAE_SOURCE, "vae_model")
    return _announce(context, main, separate, "VAE of FLUX.2")


def _announce(
    context: InvocationContext, main: ModelIdentifierField, separate: ModelIdentifierField, kind: str
) -> ModelIdentifierField:
    context.logger.info(f"{main.name} comes without a {kind}: {separate.name} is used")
    return separate
