"""A user's stored options: defaults for requests, such as the checkpoint and the VAE.

Models are listed under A1111's titles: the name and the first ten digits of the hash.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.kit.errors import NotFound
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.models.records.matching import HASH_DIGITS, find_by_name, hash_digits
from invokeclone.queue.generation import ModelNotFound, generation_models
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.shims.image_io import Format
from invokeclone.users import client_state
from invokeclone.users.current import User

KEY = "automatic1111"
"""Key of the options in the user's client state."""
CHECKPOINT_VAE_NAMES = frozenset({"", "automatic", "none"})
"""Names of the checkpoint's own VAE."""
FORMATS: dict[str, Format] = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


class VaeNotFound(NotFound):
    """No VAE has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown VAE {name!r}")


class Options(BaseModel, frozen=True):
    """The stored options."""

    checkpoint: str | None = None
    """Key of a main model; None: the first that can generate images."""
    vae: str | None = None
    """Key of a VAE; None: the checkpoint's own."""
    last_layer: int = Field(default=1, ge=1, le=12)
    """The layer of the text encoder to stop at, counted from the end."""
    samples_format: Literal["png", "jpg", "webp"] = "png"

    @property
    def format(self) -> Format:
        """Return the image format of responses."""
        return FORMATS[self.samples_format]


_HASH = re.compile(r"\s*\[[0-9a-fA-F]+\]\s*$")


# Names


def short_hash(config: ModelConfig) -> str:
    """Return the first digits of a record's hash."""
    return hash_digits(config)[:HASH_DIGITS]


def title(config: ModelConfig) -> str:
    """Return the title of a checkpoint."""
    return f"{config.name} [{short_hash(config)}]"


def without_hash(name: str) -> str:
    """Return the name in a title, without the hash that clients send with it."""
    return _HASH.sub("", name)


def _find_config(configs: list[ModelConfig], name: str) -> ModelConfig | None:
    """Return the model with this title, key, name, file or hash; names that differ only in case are told apart."""
    title_match = next((config for config in configs if title(config).casefold() == name.strip().casefold()), None)
    return title_match or find_by_name(configs, name)


async def find_checkpoint(connection: AsyncConnection, name: str) -> ModelConfig:
    """Return the main model with this name or title; raises ModelNotFound."""
    if config := _find_config(await generation_models(connection, refiners=True), name):
        return config
    raise ModelNotFound(name)


async def find_vae_key(connection: AsyncConnection, name: str) -> str | None:
    """Return the key of the VAE with this name, None for the checkpoint's own; raises VaeNotFound."""
    if name.strip().casefold() in CHECKPOINT_VAE_NAMES:
        return None
    if config := _find_config(await models.search(connection, type=ModelType.VAE), name):
        return config.key
    raise VaeNotFound(name)


# Storage


async def load(connection: AsyncConnection, user: User) -> Options:
    """Return the user's options; models that do not exist any more are left out."""
    text = await client_state.get(connection, user.user_id, KEY)
    try:
        options = Options.model_validate_json(text or "{}")
    except ValidationError:  # clients can write to this key too
        return Options()
    missing = {
        name: None
        for name in ("checkpoint", "vae")
        if (key := getattr(options, name)) is not None and not await models.exists(connection, key)
    }
    return options.model_copy(update=missing)


async def save(connection: AsyncConnection, user: User, options: Options) -> None:
    """Store the user's options."""
    await client_state.set_values(connection, user.user_id, {KEY: options.model_dump_json()})


async def apply_changes(connection: AsyncConnection, options: Options, values: Mapping[str, Any]) -> Options:
    """Return the options with a client's changes; unsupported names are ignored.

    Raises ModelNotFound, VaeNotFound or RequestRejected.
    """
    changes: dict[str, Any] = {}
    if name := values.get("sd_model_checkpoint"):
        changes["checkpoint"] = (await find_checkpoint(connection, str(name))).key
    if (name := values.get("sd_vae")) is not None:
        changes["vae"] = await find_vae_key(connection, str(name))
    if (layer := values.get("CLIP_stop_at_last_layers")) is not None:
        changes["last_layer"] = layer
    if (name := values.get("samples_format")) is not None:
        changes["samples_format"] = "jpg" if (lower := str(name).lower()) == "jpeg" else lower
    try:
        return Options.model_validate({**options.model_dump(), **changes})
    except ValidationError as error:
        names = {"last_layer": "CLIP_stop_at_last_layers"}
        problem = error.errors()[0]
        field_name = str(problem["loc"][0])
        raise RequestRejected(
            f"{names.get(field_name, field_name)}: {problem['msg']}", names.get(field_name, field_name)
        ) from error


async def describe(connection: AsyncConnection, options: Options) -> dict[str, Any]:
    """Return the options in A1111's form."""
    configs = await generation_models(connection, refiners=True)
    current = next((config for config in configs if config.key == options.checkpoint), configs[0] if configs else None)
    vae_config = await models.get(connection, options.vae) if options.vae else None
    return {
        "samples_format": options.samples_format,
        "sd_model_checkpoint": title(current) if current else None,
        "sd_checkpoint_hash": hash_digits(current) if current else None,
        "sd_vae": vae_config.name if vae_config else "Automatic",
        "CLIP_stop_at_last_layers": options.last_layer,
    }


def describe_checkpoint(config: ModelConfig) -> dict[str, Any]:
    """Return a checkpoint in A1111's form; `sha256` is None because the hashes of records are of another kind."""
    return {
        "title": title(config),
        "model_name": config.name,
        "hash": short_hash(config),
        "sha256": None,
        "filename": config.path,
        "config": None,
    }
