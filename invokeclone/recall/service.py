"""Recall: stores the parameters as client state, resolves model names, and notifies the user's web UI."""

from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType
from invokeclone.images import access
from invokeclone.images import store as images
from invokeclone.images.errors import ImageNotFound, ImageNotYours
from invokeclone.images.media_kinds import IMAGES
from invokeclone.kit.resources import Resources
from invokeclone.models.records import store as models
from invokeclone.recall.errors import StrictOrAppend
from invokeclone.recall.events import RecallParametersUpdatedEvent
from invokeclone.recall.schemas import RecallParameter
from invokeclone.users import client_state
from invokeclone.users.current import User

PREFIX = "recall_"
LISTS = ("loras", "control_layers", "ip_adapters", "reference_images")
MODELS: dict[str, tuple[ModelType, list[BaseModelType] | None]] = {
    "model": (ModelType.Main, None),
    "refiner_model": (ModelType.Main, [BaseModelType.StableDiffusionXLRefiner]),
    "vae_model": (ModelType.VAE, None),
}
"""Types and bases of models given by name."""

ADAPTERS: dict[str, tuple[ModelType, ...]] = {
    "loras": (ModelType.LoRA,),
    "control_layers": (ModelType.ControlNet, ModelType.T2IAdapter, ModelType.ControlLoRa),
    "ip_adapters": (ModelType.IPAdapter, ModelType.FluxRedux),
}


async def recall(
    resources: Resources, queue_id: str, user: User, request: RecallParameter, *, strict: bool, append: bool
) -> dict[str, Any]:
    """Store the values, notify the web UI, and return the resolved parameters. Raises StrictOrAppend."""
    if strict and append:
        raise StrictOrAppend("strict and append exclude each other")
    values = request.model_dump(mode="json") if strict else request.model_dump(mode="json", exclude_none=True)
    if strict:
        values = {name: [] if value is None and name in LISTS else value for name, value in values.items()}
    if not values:
        return {"status": "no_parameters_provided", "updated_count": 0}
    async with resources.database.write() as connection:
        texts = {f"{PREFIX}{name}": orjson.dumps(value).decode() for name, value in values.items()}
        await client_state.set_values(connection, user.user_id, texts)
        parameters = await _resolve(connection, user, values)
    if append:
        parameters["append"] = True
    resources.events.emit(RecallParametersUpdatedEvent(queue_id=queue_id, user_id=user.user_id, parameters=parameters))
    return {"status": "success", "queue_id": queue_id, "updated_count": len(values), "parameters": parameters}


async def _resolve(connection: AsyncConnection, user: User, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with model names replaced by keys; names without a matching model are left out."""
    parameters: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            parameters[name] = None
        elif name in MODELS:
            model_type, bases = MODELS[name]
            if key := await _key(connection, value, (model_type,), bases):
                parameters[name] = key
        elif name in LISTS:
            entries = [await _entry(connection, user, name, entry) for entry in value]
            parameters[name] = [entry for entry in entries if entry is not None]
        else:
            parameters[name] = value
    return parameters


async def _entry(connection: AsyncConnection, user: User, name: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return an adapter or reference image in the web UI's format; None when its model or image does not exist."""
    entry = {field: value for field, value in entry.items() if value is not None}
    image_name = entry.pop("image_name", None)
    image = await _image(connection, user, image_name) if image_name else None
    if name == "reference_images":
        return {"image": image} if image else None
    key = await _key(connection, entry.pop("model_name"), ADAPTERS[name], None)
    if key is None:
        return None
    return {"model_key": key, **({"image": image} if image else {}), **entry}


async def _key(
    connection: AsyncConnection, name: str, types: tuple[ModelType, ...], bases: list[BaseModelType] | None
) -> str | None:
    for model_type in types:
        if matches := await models.search(connection, name=name, type=model_type, bases=bases):
            return matches[0].key
    return None


async def _image(connection: AsyncConnection, user: User, name: str) -> dict[str, Any] | None:
    """Return an image's name and size; None when it does not exist or the user may not see it."""
    try:
        await access.require_readable(connection, user, IMAGES, name)
        image = await images.get(connection, name)
    except (ImageNotFound, ImageNotYours):
        return None
    return {"image_name": name, "width": image.width, "height": image.height}
