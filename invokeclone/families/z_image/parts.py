"""The parts of a Z-Image model beside its transformer: selected ones, the main model's own, or other installed models."""

from collections.abc import Sequence
from typing import Any

from invokeclone.components.separate_parts import MissingPart, first_installed, includes
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType, Qwen3VariantType, SubModelType

BASE = BaseModelType.ZImage
_ENCODER = {"type": ModelType.Qwen3Encoder}
_VAE = {"type": ModelType.VAE, "base": BaseModelType.Flux}
_ENCODER_SOURCE = "Qwen/Qwen3-4B-GGUF::Qwen3-4B-Q8_0.gguf"
_VAE_SOURCE = "Comfy-Org/z_image_turbo::split_files/vae/ae.safetensors"
"""Where a part can be installed from."""


def check_main(context: InvocationContext, model: ModelIdentifierField) -> None:
    """Raise ValueError for a model that is not installed, not a main model, or of another base."""
    check_exists(context, model)
    check_type(context, model, ModelType.Main)
    check_base(context.models.get_config(model.key), BASE)


def encoder_source(
    context: InvocationContext, mains: Sequence[ModelIdentifierField], selected: ModelIdentifierField | None
) -> ModelIdentifierField:
    """Return the model that provides Qwen3: the selected one, a main model that includes it, or an installed one."""
    return _source(
        context,
        mains,
        selected,
        SubModelType.TextEncoder,
        _ENCODER,
        ("Qwen3 encoder", _ENCODER_SOURCE, "qwen3_encoder_model"),
    )


def vae_source(
    context: InvocationContext, mains: Sequence[ModelIdentifierField], selected: ModelIdentifierField | None
) -> ModelIdentifierField:
    """Return the model that provides the VAE, as `encoder_source`."""
    return _source(context, mains, selected, SubModelType.VAE, _VAE, ("VAE of FLUX.1", _VAE_SOURCE, "vae_model"))


def _source(
    context: InvocationContext,
    mains: Sequence[ModelIdentifierField],
    selected: ModelIdentifierField | None,
    part: SubModelType,
    kind: dict[str, Any],
    names: tuple[str, str, str],
) -> ModelIdentifierField:
    """`names` are the part's, its source, and the node's input that selects it."""
    if selected is not None:
        check_exists(context, selected)
        check_type(context, selected, kind["type"])
        return selected
    if whole_model := next((main for main in mains if includes(context, main, part)), None):
        return whole_model
    separate = first_installed(context, _is_suitable, **kind) or first_installed(
        context, lambda record: includes(context, _reference(record), part), type=ModelType.Main, base=BASE
    )
    if separate is None:
        raise MissingPart(mains[-1].name, *names)
    context.logger.info(f"{mains[-1].name} comes without a {names[0]}: {separate.name} is used")
    return separate


def _reference(record: Any) -> ModelIdentifierField:
    return ModelIdentifierField(key=record.key, hash=record.hash, name=record.name, base=record.base, type=record.type)


def _is_suitable(record: Any) -> bool:
    return bool(record.type != ModelType.Qwen3Encoder or record.variant == Qwen3VariantType.Qwen3_4B)
