"""Style preset operations: access checks, preview images, import and export, and the bundled presets."""

import contextlib
import json
from pathlib import Path
from uuid import uuid4

from anyio import CancelScope
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.encoding import record_images
from invokeclone.images.encoding.record_images import StoredThumbnail
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.json_text import decode_text
from invokeclone.kit.process.offload import in_thread, off_loop
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.outcomes import read_stored
from invokeclone.kit.storage.addresses import STYLE_PRESETS
from invokeclone.presets import store, transfer
from invokeclone.presets.errors import PresetInvalid, PresetNotYours, TooManyPresets
from invokeclone.presets.schemas import PresetForm, PresetType, StylePresetRecordWithImage
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the presets and prompts that are bundled with the application."""

ImageUpload = tuple[bytes, str | None]
"""An uploaded image: its bytes and content type."""


def parse(data: str, limits: Limits) -> PresetForm:
    """Parse the form field `data`. Raises PresetInvalid, NotStorable, TooLarge."""
    try:
        return PresetForm.model_validate(decode_text(data, limits))
    except json.JSONDecodeError as error:
        raise PresetInvalid(f"not a style preset: {error}") from error
    except ValidationError as error:
        raise PresetInvalid(f"not a style preset: {transfer.first_error(error)}") from error


async def get(connection: AsyncConnection, preset_id: str, user: User) -> StylePresetRecordWithImage:
    """Return a preset that `user` may read. Raises PresetNotFound, PresetNotYours."""
    preset = await store.get(connection, preset_id)
    if not rights.may_read(user, preset.user_id, is_public=preset.is_public or preset.type is PresetType.Default):
        raise PresetNotYours
    return preset


def _owns(user: User, preset: StylePresetRecordWithImage) -> bool:
    """Return whether `user` may change a preset; only admins may change bundled ones."""
    return user.is_admin or (rights.owns(user, preset.user_id) and preset.type is not PresetType.Default)


async def _require_owner(resources: Resources, preset_id: str, user: User) -> StylePresetRecordWithImage:
    async with resources.database.read() as connection:
        preset = await store.get(connection, preset_id)
    if not _owns(user, preset):
        raise PresetNotYours
    return preset


async def create(resources: Resources, data: str, image: ImageUpload | None, user: User) -> StylePresetRecordWithImage:
    """Create a preset. Raises PresetInvalid, TooManyPresets, NotAnImage, TooManyPixels."""
    form = parse(data, resources.settings.limits)
    if form.type is PresetType.Default:
        raise PresetInvalid("presets of type 'default' cannot be created by users")
    preset_id = str(uuid4())
    version = await _store_thumbnail(resources, preset_id, image)
    try:
        async with resources.database.write() as connection:
            await _check_limit(connection, resources, user, 1)
            return await store.create(connection, form, user.user_id, preset_id=preset_id, image=version)
    except BaseException:
        if version is not None and await read_stored(resources.database, lambda c: store.exists(c, preset_id)) is False:
            with CancelScope(shield=True), contextlib.suppress(OSError):
                await record_images.remove(resources.storage, STYLE_PRESETS, preset_id)
        raise


async def update(
    resources: Resources, preset_id: str, data: str, image: ImageUpload | None, user: User
) -> StylePresetRecordWithImage:
    """Replace a preset; without `image`, its image is removed.

    Raises PresetNotFound, PresetNotYours, PresetInvalid, NotAnImage, TooManyPixels.
    """
    form = parse(data, resources.settings.limits)
    preset = await _require_owner(resources, preset_id, user)
    if (form.type is PresetType.Default) != (preset.type is PresetType.Default):
        raise PresetInvalid("the type of a preset cannot be changed from or to 'default'")
    version = await _store_thumbnail(resources, preset_id, image)
    async with resources.database.write() as connection:
        changed = await store.update_preset(connection, preset_id, form, version)
    if version is None:
        await record_images.remove(resources.storage, STYLE_PRESETS, preset_id)
    return changed


async def _check_limit(connection: AsyncConnection, resources: Resources, user: User, count: int) -> None:
    """Raise TooManyPresets if `count` more presets exceed the user's limit."""
    limit = resources.settings.limits.presets
    if await store.count_of(connection, user.user_id) + count > limit:
        raise TooManyPresets(limit)


async def _store_thumbnail(resources: Resources, preset_id: str, image: ImageUpload | None) -> str | None:
    """Write the image, if there is one, and return its version."""
    if image is None:
        return None
    webp = await record_images.make(*image, resources.settings.limits)
    await record_images.save(resources.storage, STYLE_PRESETS, preset_id, webp)
    return record_images.new_version()


async def delete(resources: Resources, preset_id: str, user: User) -> None:
    """Delete a preset and its image. Raises PresetNotFound, PresetNotYours."""
    await _require_owner(resources, preset_id, user)
    async with resources.database.write() as connection:
        await store.delete_preset(connection, preset_id)
    await record_images.remove_of_deleted(resources.storage, STYLE_PRESETS, preset_id)


async def thumbnail_of(resources: Resources, preset_id: str, user: User) -> StoredThumbnail:
    """Return the stored image of a preset. Raises PresetNotFound, PresetNotYours, NoThumbnail."""
    async with resources.database.read() as connection:
        await get(connection, preset_id, user)
    return await record_images.find(resources.storage, STYLE_PRESETS, preset_id)


async def import_file(resources: Resources, data: bytes, content_type: str | None, user: User) -> None:
    """Create a preset from each row of a file, in one transaction.

    Raises FileUnknown, FileInvalid, Unprocessable, TooLarge, TooManyPresets.
    """
    limits = resources.settings.limits
    rows = await off_loop(lambda: transfer.read(data, content_type, limits))
    async with resources.database.write() as connection:
        await _check_limit(connection, resources, user, len(rows))
        await store.create_many(connection, rows, user.user_id)


async def export_csv(resources: Resources) -> bytes:
    """Return the presets created by users as a CSV file."""
    async with resources.database.read() as connection:
        rows = await store.list_users(connection)
    return await in_thread(transfer.write, rows)


async def start(resources: Resources) -> None:
    """Update the bundled presets in the database to those of this version, keeping their ids."""
    text = await in_thread((BUNDLED / "style_presets.json").read_text, "utf-8")
    bundled = {
        preset["id"]: (preset["name"], preset["positive_prompt"], preset["negative_prompt"])
        for preset in json.loads(text)
    }
    async with resources.database.read() as connection:
        present = await store.defaults(connection)
    if present == bundled:
        return
    async with resources.database.write() as connection:
        await store.delete_many(connection, present.keys() - bundled.keys())
        for preset_id, texts in bundled.items():
            if present.get(preset_id) != texts:
                await store.replace_default(connection, preset_id, texts, SYSTEM.user_id)
