"""A user's options: the checkpoint, the VAE and the like that requests mean when they name none; kept over restarts.

Records of models are shown with the names that A1111 has for them: a title is the name and the first ten digits of the hash.
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
from invokeclone.models.records.matching import HASH_DIGITS, hash_digits, named
from invokeclone.queue.generation import ModelNotFound, generation_models
from invokeclone.shims.dialect import Refused
from invokeclone.shims.pictures import Format
from invokeclone.users import client_state
from invokeclone.users.current import User

KEY = "automatic1111"
"""Under which key the options lie in the user's state."""
OWN_VAE = frozenset({"", "automatic", "none"})
"""Words for the VAE that the checkpoint brings along."""
FORMATS: dict[str, Format] = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


class VaeNotFound(NotFound):
    """No VAE goes by this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no VAE {name!r}")


class Options(BaseModel, frozen=True):
    """What is kept."""

    checkpoint: str | None = None
    """Key of a main model; None: the first that can make pictures."""
    vae: str | None = None
    """Key of a VAE; None: the checkpoint's own."""
    last_layer: int = Field(default=1, ge=1, le=12)
    """At which of the text encoder's layers to stop, counted from the end."""
    samples_format: Literal["png", "jpg", "webp"] = "png"

    @property
    def format(self) -> Format:
        """Return the format of answers."""
        return FORMATS[self.samples_format]


_HASH = re.compile(r"\s*\[[0-9a-fA-F]+\]\s*$")


# Names


def short_hash(config: ModelConfig) -> str:
    """Return the first digits of a record's hash."""
    return hash_digits(config)[:HASH_DIGITS]


def title(config: ModelConfig) -> str:
    """Return what a checkpoint is called in lists."""
    return f"{config.name} [{short_hash(config)}]"


def without_hash(name: str) -> str:
    """Return a title's name: clients write the hash behind it."""
    return _HASH.sub("", name)


def _found(known: list[ModelConfig], name: str) -> ModelConfig | None:
    """Return the record of this title, key, name, file or hash; whether letters are capitals matters only if it must."""
    titled = next((config for config in known if title(config).casefold() == name.strip().casefold()), None)
    return titled or named(known, name)


async def checkpoint(connection: AsyncConnection, name: str) -> ModelConfig:
    """Return the main model of a name; raises ModelNotFound."""
    if found := _found(await generation_models(connection, refiners=True), name):
        return found
    raise ModelNotFound(name)


async def vae(connection: AsyncConnection, name: str) -> str | None:
    """Return the key of the VAE of a name, None for the checkpoint's own; raises VaeNotFound."""
    if name.strip().casefold() in OWN_VAE:
        return None
    if found := _found(await models.search(connection, type=ModelType.VAE), name):
        return found.key
    raise VaeNotFound(name)


# What is kept


async def load(connection: AsyncConnection, user: User) -> Options:
    """Return the user's options; a model that is gone counts as none."""
    kept = await client_state.get(connection, user.user_id, KEY)
    try:
        options = Options.model_validate_json(kept or "{}")
    except ValidationError:  # clients may write there too
        return Options()
    gone = {
        name: None
        for name in ("checkpoint", "vae")
        if (key := getattr(options, name)) is not None and not await models.exists(connection, key)
    }
    return options.model_copy(update=gone)


async def save(connection: AsyncConnection, user: User, options: Options) -> None:
    """Keep the user's options."""
    await client_state.put(connection, user.user_id, {KEY: options.model_dump_json()})


async def changed(connection: AsyncConnection, options: Options, asked: Mapping[str, Any]) -> Options:
    """Return the options with what a client sets; names that mean nothing here are ignored.

    Raises ModelNotFound, VaeNotFound or Refused.
    """
    new: dict[str, Any] = {}
    if name := asked.get("sd_model_checkpoint"):
        new["checkpoint"] = (await checkpoint(connection, str(name))).key
    if (name := asked.get("sd_vae")) is not None:
        new["vae"] = await vae(connection, str(name))
    if (layer := asked.get("CLIP_stop_at_last_layers")) is not None:
        new["last_layer"] = layer
    if (name := asked.get("samples_format")) is not None:
        new["samples_format"] = "jpg" if (lower := str(name).lower()) == "jpeg" else lower
    try:
        return Options.model_validate({**options.model_dump(), **new})
    except ValidationError as error:
        names = {"last_layer": "CLIP_stop_at_last_layers"}
        problem = error.errors()[0]
        place = str(problem["loc"][0])
        raise Refused(f"{names.get(place, place)}: {problem['msg']}", names.get(place, place)) from error


async def listed(connection: AsyncConnection, options: Options) -> dict[str, Any]:
    """Return the options in A1111's form."""
    known = await generation_models(connection, refiners=True)
    current = next((config for config in known if config.key == options.checkpoint), known[0] if known else None)
    own_vae = await models.get(connection, options.vae) if options.vae else None
    return {
        "samples_format": options.samples_format,
        "sd_model_checkpoint": title(current) if current else None,
        "sd_checkpoint_hash": hash_digits(current) if current else None,
        "sd_vae": own_vae.name if own_vae else "Automatic",
        "CLIP_stop_at_last_layers": options.last_layer,
    }


def listed_checkpoint(config: ModelConfig) -> dict[str, Any]:
    """Return a checkpoint in A1111's form; the hash of a record here is of another kind than SHA-256."""
    return {
        "title": title(config),
        "model_name": config.name,
        "hash": short_hash(config),
        "sha256": None,
        "filename": config.path,
        "config": None,
    }
