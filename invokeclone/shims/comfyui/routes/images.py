"""Routes of images: view and upload."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import FileResponse
from PIL import Image
from starlette.datastructures import FormData, UploadFile

from invokeclone.images import image_work
from invokeclone.images import service as images
from invokeclone.images.errors import ImageNotFound, ImagesMoving
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.files.image_files import open_stored_image
from invokeclone.kit.files.image_modes import convert, orientation
from invokeclone.kit.json_text import decode_text
from invokeclone.kit.requests import Needs
from invokeclone.kit.resources import Resources
from invokeclone.shims import image_io
from invokeclone.shims.comfyui.files import uploads
from invokeclone.shims.comfyui.files.names import INPUT, OUTPUT, ImageName
from invokeclone.shims.comfyui.routes.routing import routes
from invokeclone.shims.compat_api import RequestRejected, json_response
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

OVERWRITE = ("true", "1")
Result = TypeVar("Result")
Source = Path | io.BytesIO
"""The file of an image, or its content if the file is not on this machine."""


@routes.get("/view")
async def view(request: Request, needs: Needs, user: Caller) -> Response:
    """Get an image by `filename`, `subfolder` and `type`: `preview=webp;90` re-encodes it, `channel` is rgba, rgb or a."""
    query = request.query_params
    name = ImageName.parse(query.get("filename", ""), query.get("type") or OUTPUT, query.get("subfolder", ""))
    channel = query.get("channel", "rgba")
    preview, _, quality = query.get("preview", "").partition(";")
    may_be_unchanged = not preview and channel not in ("rgb", "a")
    format_: image_io.Format = "png" if not preview else "jpeg" if preview in ("jpeg", "jpg") else "webp"
    is_number = quality.isascii() and quality.isdigit() and len(quality) < 4  # noqa: PLR2004  (digits)
    quality_value = min(max(int(quality), 1), 100) if is_number else None

    def respond(source: Source) -> Response:
        with open_stored_image(source) as image:
            if may_be_unchanged and orientation(image) == 1:
                return _send(source, name.name)
            data = image_io.encode(_channel(image_io.read_upright(image), channel), format_, quality_value)
        return Response(data, media_type=image_io.MIME[format_])

    return (await _process(needs, name, user, respond))[1]


def _send(source: Source, name: str) -> Response:
    if isinstance(source, Path):
        return FileResponse(source, media_type="image/png", filename=name, content_disposition_type="inline")
    headers = {"Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}"}
    return Response(source.getvalue(), media_type="image/png", headers=headers)


async def _process(
    resources: Resources, name: ImageName, user: User, work: Callable[[Source], Result]
) -> tuple[str, Result]:
    """Run blocking `work` on an image; return the server's name of it, and the result.

    Raises ImagesMoving, ImageNotYours, ImageNotFound.
    """
    _check_not_moving(resources)
    async with resources.database.read() as connection:
        image_name = (await uploads.resolve(connection, user, [name])).get(name)
    if image_name is None:
        raise ImageNotFound(name.path)
    file = await images.file(resources, image_name, user=user)
    try:
        return image_name, await image_work.process(file.source, work)
    except FileNotFoundError as error:
        raise ImageNotFound(name.path) from error


def _check_not_moving(resources: Resources) -> None:
    if resources.maintenance:
        raise ImagesMoving


def _channel(image: Image.Image, channel: str) -> Image.Image:
    if channel == "rgb":
        return convert(image, "RGB")
    if channel != "a":
        return image
    alpha_image = Image.new("RGBA", image.size)
    alpha_image.putalpha(convert(image, "RGBA").getchannel("A"))
    return alpha_image


@routes.post("/upload/image")
async def upload_image(request: Request, needs: Needs, user: Caller) -> Response:
    """Store an image under its name in `subfolder` of `type`; another file of this name stays, unless `overwrite` is true."""
    _check_not_moving(needs)
    async with request.form(max_files=1, max_fields=20) as form:
        upload = await _read_upload(needs, form)
    return await _store(needs, user, upload, upload.image, upload.content_hash)


@routes.post("/upload/mask")
async def upload_mask(request: Request, needs: Needs, user: Caller) -> Response:
    """Store a copy of the image named by `original_ref`, with the alpha channel of the uploaded one."""
    async with request.form(max_files=1, max_fields=20) as form:
        upload = await _read_upload(needs, form)
        original = _original_name(form, needs.settings.limits)

    def apply_mask(source: Source) -> Image.Image:
        with open_stored_image(source) as image:
            result = convert(image_io.read_upright(image), "RGBA")
        alpha = convert(upload.image, "RGBA").getchannel("A").resize(result.size)
        result.putalpha(alpha)
        return result

    original_name, masked = await _process(needs, original, user, apply_mask)
    return await _store(needs, user, upload, masked, f"{original_name} {upload.content_hash}")


async def _store(resources: Resources, user: User, upload: "Upload", image: Image.Image, content_hash: str) -> Response:
    name = await uploads.store(resources, user, upload.name, image, content_hash, overwrite=upload.overwrite)
    return json_response(name.fields)


@dataclass(frozen=True)
class Upload:
    """An uploaded image, and where it is to be stored."""

    name: ImageName
    image: Image.Image
    """RGB or RGBA."""
    content_hash: str
    """SHA-256 of the file, in hexadecimal."""
    overwrite: bool


async def _read_upload(resources: Resources, form: FormData) -> Upload:
    """Return the upload of a form; raises RequestRejected, PathOutside."""
    file = form.get("image")
    if not isinstance(file, UploadFile):
        raise RequestRejected("the file is missing", "image")
    name = ImageName.parse(file.filename or "", _text(form, "type") or INPUT, _text(form, "subfolder"))
    data = await file.read()
    image = await image_io.decode_image(resources, data, "image")
    mode = "RGBA" if image.has_transparency_data else "RGB"

    def convert_and_hash() -> tuple[Image.Image, str]:
        return convert(image, mode), hashlib.sha256(data).hexdigest()

    converted, content_hash = await image_work.image_work(convert_and_hash)
    return Upload(name, converted, content_hash, overwrite=_text(form, "overwrite").lower() in OVERWRITE)


def _text(form: FormData, name: str) -> str:
    """Return a text of a form; empty without it. Raises RequestRejected for a file."""
    value = form.get(name, "")
    if not isinstance(value, str):
        raise RequestRejected("must be a text", name)
    return value


def _original_name(form: FormData, limits: Limits) -> ImageName:
    try:
        reference = decode_text(_text(form, "original_ref"), limits)
    except json.JSONDecodeError as error:
        raise RequestRejected("not valid JSON", "original_ref") from error
    if not isinstance(reference, dict):
        raise RequestRejected("must be an object", "original_ref")
    fields = {name: value for name, value in reference.items() if value is not None}
    name, folder, subfolder = fields.get("filename"), fields.get("type", OUTPUT), fields.get("subfolder", "")
    if not (name and isinstance(name, str) and isinstance(folder, str) and isinstance(subfolder, str)):
        raise RequestRejected("must name an image: filename, subfolder, type", "original_ref")
    return ImageName.parse(name, folder, subfolder)
