"""Resolution of a request's LoRAs, control models, IP-Adapters, refiner and VAE, and access checks of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.components.control import image_encoders
from invokeclone.graph.recipes import AppliedControl, AppliedLoRA, ControlKind, ReferenceImage, Refiner, merge_loras
from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.images import access
from invokeclone.images.errors import ImageNotFound, ImageNotYours
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.models.records.matching import find_by_name
from invokeclone.queue.generation.control_types import find_by_type
from invokeclone.queue.generation.errors import ExtraModelNotFound, ExtraModelNotInstalled, InvalidGeneration
from invokeclone.queue.generation.mains import (
    architecture_of,
    identifier,
    recipe_for,
    record_default,
    require_capability,
    resolve_scheduler,
    vae_base_of,
)
from invokeclone.queue.generation.request import (
    ControlChoice,
    GenerationRequest,
    LoRAChoice,
    ReferenceImageChoice,
    RefinerChoice,
)
from invokeclone.tables import images
from invokeclone.users.current import User


@dataclass(frozen=True)
class AdapterKind:
    """A kind of model that requests may add to the main model."""

    what: str
    types: tuple[ModelType, ...]

    async def list_installed(self, connection: AsyncConnection) -> list[ModelConfig]:
        """Return the installed models of this kind."""
        return [config for model_type in self.types for config in await models.search(connection, type=model_type)]

    def find(self, candidates: Sequence[ModelConfig], name: str, config: ModelConfig, base: str) -> ModelConfig:
        """Return the model with a key or name for the main model `config`, which requires the base `base`.

        Raises ExtraModelNotFound, and InvalidGeneration for a model of another base.
        """
        extra = find_by_name(candidates, name, base)
        if extra is None:
            raise ExtraModelNotFound(self.what, name)
        if extra.base != base:
            if base != config.base:
                raise InvalidGeneration(f"{extra.name} is {extra.base}: {config.name} requires a {self.what} of {base}")
            raise InvalidGeneration(
                f"the {self.what} {extra.name} is for {extra.base} models, {config.name} is {config.base}"
            )
        return extra


LORAS = AdapterKind("LoRA", (ModelType.LoRA,))
CONTROLS = AdapterKind(
    "ControlNet, T2I-Adapter or control LoRA", (ModelType.ControlNet, ModelType.T2IAdapter, ModelType.ControlLoRa)
)
IP_ADAPTERS = AdapterKind("IP-Adapter", (ModelType.IPAdapter,))
IMAGE_ENCODERS = AdapterKind("CLIP vision model", (ModelType.CLIPVision,))
REFINERS = AdapterKind("refiner", (ModelType.Main,))
VAES = AdapterKind("VAE", (ModelType.VAE,))


async def loras(connection: AsyncConnection, choices: Sequence[LoRAChoice], config: ModelConfig) -> list[AppliedLoRA]:
    """Return LoRAs by key or name; the weights of a LoRA that occurs several times are added."""
    installed = await LORAS.list_installed(connection) if choices else []
    return merge_loras(
        AppliedLoRA(
            identifier(LORAS.find(installed, choice.model, config, str(config.base))), choice.weight, choice.text_weight
        )
        for choice in choices
    )


async def controls(
    connection: AsyncConnection, choices: Sequence[ControlChoice], config: ModelConfig
) -> list[AppliedControl]:
    """Return control models by key or name. Raises InvalidGeneration for settings that a model does not support."""
    installed = await CONTROLS.list_installed(connection) if choices else []
    applied = []
    for choice in choices:
        of_type = find_by_type(installed, choice.model, config)
        model, kind = of_type or (CONTROLS.find(installed, choice.model, config, str(config.base)), None)
        kind = choice.kind or kind
        _check_range(model, choice.begin, choice.end)
        if model.type == ModelType.T2IAdapter and (choice.weight < 0 or choice.mode != "balanced"):
            raise InvalidGeneration(f"{model.name} is a T2I-Adapter: its weight must be at least 0, and it has no mode")
        if choice.mode != "balanced" and not recipe_for(config).has_control_modes:
            raise InvalidGeneration(f"{model.name}: ControlNets of {config.base} have no mode: remove `mode`")
        check_control_kind(config, kind)
        values = identifier(model), choice.image, choice.weight, choice.begin, choice.end, choice.mode, choice.resize
        applied.append(AppliedControl(*values, kind=kind))
    return applied


def check_control_kind(config: ModelConfig, kind: ControlKind | None) -> None:
    """Raise InvalidGeneration if union ControlNets of a main model's base do not take images of a kind."""
    kinds = recipe_for(config).control_kinds
    if kind is None or kind in kinds:
        return
    if not kinds:
        raise InvalidGeneration(f"ControlNets of {config.base} have no kinds of images: leave the kind out")
    raise InvalidGeneration(f"union ControlNets of {config.base} take no {kind} images, only {', '.join(kinds)}")


def _check_range(model: ModelConfig, begin: float, end: float) -> None:
    if begin >= end:
        raise InvalidGeneration(f"{model.name}: begin must be less than end, not {begin}")


async def references(
    connection: AsyncConnection, choices: Sequence[ReferenceImageChoice], config: ModelConfig
) -> list[ReferenceImage]:
    """Return reference images with their IP-Adapters and image encoders, which a model that reads them itself lacks.

    Raises ExtraModelNotInstalled if there is no adapter for the model, or an adapter's image encoder is missing.
    """
    if not choices:
        return []
    require_capability(config, "reference_images")
    if architecture_of(config).capabilities.reads_references:
        return [_own_reference(choice, config) for choice in choices]
    adapters = await IP_ADAPTERS.list_installed(connection)
    encoders = await IMAGE_ENCODERS.list_installed(connection)
    applied = []
    for choice in choices:
        adapter = _ip_adapter(adapters, choice.model, config)
        _check_range(adapter, choice.begin, choice.end)
        applied.append(
            ReferenceImage(
                identifier(adapter),
                choice.image,
                image_encoder(encoders, adapter, choice.image_encoder),
                choice.weight,
                choice.begin,
                choice.end,
                choice.method,
                choice.mask,
            )
        )
    return applied


def _own_reference(choice: ReferenceImageChoice, config: ModelConfig) -> ReferenceImage:
    """Return a reference image that the model reads itself. Raises InvalidGeneration for an adapter's settings."""
    if changed := choice.model_dump(exclude={"image"}, exclude_defaults=True):
        names = ", ".join(f"`{name}`" for name in changed)
        raise InvalidGeneration(f"{config.name} reads reference images without an adapter: remove {names}")
    return ReferenceImage(None, choice.image)


def _ip_adapter(adapters: Sequence[ModelConfig], name: str | None, config: ModelConfig) -> ModelConfig:
    if name is not None:
        return IP_ADAPTERS.find(adapters, name, config, str(config.base))
    adapter = next((candidate for candidate in adapters if candidate.base == config.base), None)
    if adapter is None:
        raise ExtraModelNotInstalled(f"no IP-Adapter for {config.base} models is installed: install one")
    return adapter


def image_encoder(installed: Sequence[ModelConfig], adapter: ModelConfig, requested_name: str | None) -> str:
    """Return the nodes' name of an IP-Adapter's image encoder. Raises ExtraModelNotInstalled if it is missing."""
    recorded = image_encoders.encoder_name_of(adapter)
    name = recorded or requested_name or image_encoders.default_name(adapter)
    if any(encoder.name in image_encoders.record_names(name) for encoder in installed):
        return image_encoders.node_name_of(name) or image_encoders.DEFAULT
    raise ExtraModelNotInstalled(f"{adapter.name}: {image_encoders.how_to_install(name)}")


async def refiner(connection: AsyncConnection, choice: RefinerChoice | None, config: ModelConfig) -> Refiner | None:
    """Return the refiner by key or name; unset values default to those of its record."""
    if choice is None:
        return None
    require_capability(config, "refiner")
    base = str(architecture_of(config).capabilities.refiner)
    model = REFINERS.find(await REFINERS.list_installed(connection), choice.model, config, base)

    def value(name: str) -> Any:
        requested_value = getattr(choice, name)
        return record_default(model, name) if requested_value is None else requested_value

    scheduler = value("scheduler")
    return Refiner(
        identifier(model),
        choice.start,
        value("steps"),
        value("cfg_scale"),
        None if scheduler is None else resolve_scheduler(model, scheduler),
        choice.positive_aesthetic_score,
        choice.negative_aesthetic_score,
    )


async def vae(
    connection: AsyncConnection, requested_name: str | None, default: str | None, config: ModelConfig
) -> Mapping[str, Any] | None:
    """Return the VAE by key or name; a default VAE that is missing or of another base is ignored."""
    name = default if requested_name is None else requested_name
    if name is None:
        return None
    installed, base = await VAES.list_installed(connection), vae_base_of(config)
    if requested_name is None:
        match = find_by_name(installed, name, base)
        return identifier(match) if match and match.base == base else None
    return identifier(VAES.find(installed, requested_name, config, base))


async def require_images(connection: AsyncConnection, user: User, request: GenerationRequest) -> None:
    """Raise ImageNotFound or ImageNotYours for the first image of a request that the user cannot read."""
    names = [control.image for control in request.controls]
    for reference in request.reference_images:
        names += [reference.image, *([] if reference.mask is None else [reference.mask])]
    if request.init_image:
        names.append(request.init_image.image)
    if request.inpaint_mask:
        names.append(request.inpaint_mask.mask)
    if not names:
        return
    allowed = await access.readable(connection, user, access.IMAGES, names)
    if allowed.refused:
        raise ImageNotYours(allowed.refused[0])
    query = select(images.c.image_name).where(images.c.image_name.in_(allowed.names))
    existing = set(await connection.scalars(query))
    for name in names:
        if name not in existing:
            raise ImageNotFound(name)
