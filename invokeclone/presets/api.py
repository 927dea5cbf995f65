"""Routes of style presets."""

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, Response, UploadFile

from invokeclone.images import responses
from invokeclone.kit.requests import Needs, Read
from invokeclone.presets import prompts_api, service, store
from invokeclone.presets.schemas import StylePresetRecordWithImage
from invokeclone.users import rights
from invokeclone.users.current import Admin, CurrentUser, MediaUser

routes = APIRouter(prefix="/api/v1/style_presets", tags=["style_presets"])

PresetId = Annotated[str, Path(description="The id of the style preset.")]
Data = Annotated[
    str, Form(description="JSON: name, positive_prompt, negative_prompt, type and, optionally, is_public.")
]
Image = Annotated[UploadFile | None, File(description="The image of the style preset.")]

CSV: dict[int | str, dict[str, Any]] = {200: {"description": "The file", "content": {"text/csv": {}}}}
IMAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image"},
    400: {"description": "Invalid id"},
    404: {"description": "The preset does not exist or has no image"},
}


async def _read_image(image: UploadFile | None) -> service.ImageUpload | None:
    return None if image is None else (await image.read(), image.content_type)


@routes.get("/")
async def list_style_presets(connection: Read, user: CurrentUser) -> list[StylePresetRecordWithImage]:
    """List the style presets by name: the user's own, public and bundled ones; admins see all."""
    return await store.list_presets(connection, rights.scope(user))


@routes.post("/")
async def create_style_preset(
    needs: Needs, user: CurrentUser, data: Data, image: Image = None
) -> StylePresetRecordWithImage:
    """Create a style preset."""
    return await service.create(needs, data, await _read_image(image), user)


@routes.get("/export", responses=CSV)
async def export_style_presets(needs: Needs, user: Admin) -> Response:  # noqa: ARG001
    """Get all style presets created by users as a CSV file."""
    headers = {"Content-Disposition": "attachment; filename=prompt_templates.csv"}
    return Response(await service.export_csv(needs), media_type="text/csv", headers=headers)


@routes.post("/import")
async def import_style_presets(
    needs: Needs, user: Admin, file: Annotated[UploadFile, File(description="CSV or JSON.")]
) -> Any:
    """Create style presets from a CSV or JSON file with name, prompt (or positive_prompt) and negative_prompt."""
    await service.import_file(needs, await file.read(), file.content_type, user)


@routes.get("/i/{style_preset_id}")
async def get_style_preset(
    connection: Read, user: CurrentUser, style_preset_id: PresetId
) -> StylePresetRecordWithImage:
    """Get a style preset."""
    return await service.get(connection, style_preset_id, user)


@routes.patch("/i/{style_preset_id}")
async def update_style_preset(
    needs: Needs, user: CurrentUser, style_preset_id: PresetId, data: Data, image: Image = None
) -> StylePresetRecordWithImage:
    """Replace a style preset; without `image`, its image is removed."""
    return await service.update(needs, style_preset_id, data, await _read_image(image), user)


@routes.delete("/i/{style_preset_id}")
async def delete_style_preset(needs: Needs, user: CurrentUser, style_preset_id: PresetId) -> Any:
    """Delete a style preset."""
    await service.delete(needs, style_preset_id, user)


@routes.get("/i/{style_preset_id}/image", responses=IMAGE_RESPONSES)
async def get_style_preset_image(needs: Needs, user: MediaUser, style_preset_id: PresetId) -> Response:
    """Get the image of a style preset."""
    return await responses.thumbnail(await service.thumbnail_of(needs, style_preset_id, user), needs.settings)


router = APIRouter()
router.include_router(routes)
router.include_router(prompts_api.router)
