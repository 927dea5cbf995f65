"""Style presets beyond one statement: rights, pictures, and those that come with the application; it knows no HTTP."""

import json
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.encoding import record_images as pictures
from invokeclone.images.encoding.record_images import StoredThumbnail
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.json_text import decode_text
from invokeclone.kit.process.offload import in_thread, off_loop
from invokeclone.kit.resources import Resources
from invokeclone.presets import store, transfer
from invokeclone.presets.errors import PresetInvalid, PresetNotYours, TooManyPresets
from invokeclone.presets.schemas import PresetForm, PresetType, StylePresetRecordWithImage
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of what comes with the application."""

ImageUpload = tuple[bytes, str | None]
"""An uploaded picture: its bytes and content type."""


def parse(data: str, limits: Limits) -> PresetForm:
    """Read the form's field `data`; raises PresetInvalid, and NotStorable or TooLarge as every JSON of clients does."""
    try:
        return PresetForm.model_validate(decode_text(data, limits))
    except json.JSONDecodeError as error:
        raise PresetInvalid(f"not a style preset: {error}") from error
    except ValidationError as error:
        raise PresetInvalid(f"not a style preset: {transfer.first_error(error)}") from error


async def get(connection: AsyncConnection, preset_id: str, user: User) -> StylePresetRecordWithImage:
    """Return a preset that `user` may read; raises PresetNotFound, PresetNotYours."""
    preset = await store.get(connection, preset_id)
    if not rights.may_read(user, preset.user_id, is_public=preset.is_public or preset.type is PresetType.Default):
        raise PresetNotYours
    return preset


def _owns(user: User, preset: StylePresetRecordWithImage) -> bool:
    """Tell whether `user` may change a preset: only admins may those that come with the application."""
    return user.is_admin or (rights.owns(user, preset.user_id) and preset.type is not PresetType.Default)


async def _require_owner(resources: Resources, preset_id: str, user: User) -> StylePresetRecordWithImage:
    async with resources.database.read() as connection:
        preset = await store.get(connection, preset_id)
    if not _owns(user, preset):
        raise PresetNotYours
    return preset


async def create(resources: Resources, data: str, image: ImageUpload | None, user: User) -> StylePresetRecordWithImage:
    """Make a preset. Raises PresetInvalid, NotAnImage, TooManyPixels."""
    form = parse(data, resources.settings.limits)
    if form.type is PresetType.Default:
        raise PresetInvalid("only the application makes presets of the type 'default'")
    preset_id = str(uuid4())
    version = await _store_thumbnail(resources, preset_id, image)
    async with resources.database.write() as connection:
        await _check_limit(connection, resources, user, 1)
        return await store.create(connection, form, user.user_id, preset_id=preset_id, image=version)


async def update(
    resources: Resources, preset_id: str, data: str, image: ImageUpload | None, user: User
) -> StylePresetRecordWithImage:
    """Change a preset; without a picture it has none afterwards.

    Raises PresetNotFound, PresetNotYours, PresetInvalid, NotAnImage, TooManyPixels.
    """
    form = parse(data, resources.settings.limits)
    preset = await _require_owner(resources, preset_id, user)
    if (form.type is PresetType.Default) != (preset.type is PresetType.Default):
        raise PresetInvalid("a preset that comes with the application stays one, and no other becomes one")
    version = await _store_thumbnail(resources, preset_id, image)
    async with resources.database.write() as connection:
        changed = await store.update_preset(connection, preset_id, form, version)
    if version is None:
        await pictures.remove(resources.settings.style_presets_path, preset_id)
    return changed


async def _check_limit(connection: AsyncConnection, resources: Resources, user: User, count: int) -> None:
    """Raise TooManyPresets when the user has no room for more."""
    limit = resources.settings.limits.presets
    if await store.count_of(connection, user.user_id) + count > limit:
        raise TooManyPresets(limit)


async def _store_thumbnail(resources: Resources, preset_id: str, image: ImageUpload | None) -> str | None:
    """Write the picture, if there is one, and return its mark."""
    if image is None:
        return None
    webp = await pictures.make(*image, resources.settings.limits)
    await pictures.save(resources.settings.style_presets_path, preset_id, webp)
    return pictures.new_version()


async def delete(resources: Resources, preset_id: str, user: User) -> None:
    """Delete a preset and its picture; raises PresetNotFound, PresetNotYours."""
    await _require_owner(resources, preset_id, user)
    async with resources.database.write() as connection:
        await store.delete_preset(connection, preset_id)
    await pictures.remove(resources.settings.style_presets_path, preset_id)


async def thumbnail_of(resources: Resources, preset_id: str, user: User) -> StoredThumbnail:
    """Return where a preset's image lies; raises PresetNotFound, PresetNotYours, NoThumbnail."""
    async with resources.database.read() as connection:
        await get(connection, preset_id, user)
    return await pictures.find(resources.settings.style_presets_path, preset_id)


async def import_file(resources: Resources, data: bytes, content_type: str | None, user: User) -> None:
    """Make a preset of each row of a file, or none at all; raises FileUnknown, FileInvalid."""
    limits = resources.settings.limits
    rows = await off_loop(lambda: transfer.read(data, content_type, limits))
    async with resources.database.write() as connection:
        await _check_limit(connection, resources, user, len(rows))
        await store.create_many(connection, rows, user.user_id)


async def export_csv(resources: Resources) -> bytes:
    """Return the presets that users made as a CSV file."""
    async with resources.database.read() as connection:
        rows = await store.list_users(connection)
    return await in_thread(transfer.write, rows)


async def start(resources: Resources) -> None:
    """Bring the presets that come with the application up to this version's; they keep their ids."""
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
