"""Routes of ComfyUI's API, at the root, below /api and below /comfyui."""

import contextlib
import json
import platform
import sys
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psutil
from fastapi import APIRouter, Depends, Request, Response, WebSocket
from fastapi.responses import FileResponse
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.routing import Route, WebSocketRoute

from invokeclone.images import service as images
from invokeclone.images.errors import ImageNotFound, ImagesMoving
from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.errors import Forbidden, InvokeCloneError, NotFound
from invokeclone.kit.files.image_files import open_stored_image
from invokeclone.kit.files.image_modes import convert
from invokeclone.kit.json_text import decode_text
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.requests import Needs, NeedsWorkers, Read
from invokeclone.kit.resources import Resources
from invokeclone.models.records import caches
from invokeclone.queue import service
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.schemas import TERMINAL
from invokeclone.shims import image_io
from invokeclone.shims.comfyui import catalog, history, store
from invokeclone.shims.comfyui.catalog import FOLDERS, Catalog
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.nodes.images import strip_folder
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.sockets import Clients, clients_of
from invokeclone.shims.comfyui.translate import NAME, batch_of
from invokeclone.shims.comfyui.workflow import ValidatedWorkflow, WorkflowRejected, check
from invokeclone.shims.compat_api import Problem, RequestRejected, json_response, problem_of, read_object
from invokeclone.shims.compat_api import router as compat_router
from invokeclone.shims.runs import QueueFull
from invokeclone.users.caller import Caller, caller
from invokeclone.users.current import Identity, User, identify
from invokeclone.version import __version__

MAX_ID_LENGTH = 200
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
"""Credentials for other services that ComfyUI's own frontend sends; they are not stored."""
PREFIXES = ("", "/api", "/comfyui", "/comfyui/api")
COMFYUI_VERSION = "0.3.60"
"""The version of ComfyUI's API that is reported to clients."""


def render(problem: Problem) -> Response:
    """Return an error in ComfyUI's form."""
    kind = problem.code or {401: "unauthorized", 403: "forbidden", 404: "not_found"}.get(
        problem.status,
        "invalid_request" if problem.status < 500 else "internal_error",  # noqa: PLR2004  (server errors)
    )
    details = problem.param or ""
    error = {"type": kind, "message": problem.message, "details": details, "extra_info": {}}
    return json_response({"error": error, "node_errors": {}}, problem.status, problem.headers)


routes = compat_router(render)
NeedsClients = Annotated[Clients, Depends(clients_of)]


# Prompts


@routes.get("/prompt")
async def get_prompt(user: Caller, connection: Read) -> Response:
    """Get the number of the caller's prompts that have not ended."""
    remaining = await store.count_active(connection, user.user_id)
    return json_response({"exec_info": {"queue_remaining": remaining}})


@routes.post("/prompt")
async def post_prompt(request: Request, needs: Needs, user: Caller, clients: NeedsClients) -> Response:
    """Validate a workflow, translate it to a graph and enqueue it."""
    body = await read_object(request)
    try:
        prompt_record, prompt_id = _read_prompt(body)
        async with needs.database.read() as connection:
            if "prompt_id" in body:
                await _check_new(connection, prompt_id)
            model_catalog = await catalog.read(connection, user, list(_input_image_names(prompt_record.prompt)))
        checked, prompt_record, batch = await in_thread(
            lambda: _translate(prompt_record, model_catalog, prompt_id, needs.settings.limits)
        )
    except WorkflowRejected as refused:
        return json_response(refused.body, 400)
    clients.follow_prompt(prompt_id, user, prompt_record, list(batch.graph.nodes))
    try:
        result = await service.enqueue(needs, service.DEFAULT_QUEUE, batch, prepend=_is_first(body), user=user)
    except BaseException:
        clients.forget(prompt_id)
        raise
    if not result.item_ids:
        clients.forget(prompt_id)
        raise QueueFull
    clients.mark_enqueued(prompt_id)
    return json_response({"prompt_id": prompt_id, "number": result.item_ids[0], "node_errors": checked.errors})


async def _check_new(connection: AsyncConnection, prompt_id: str) -> None:
    if await store.is_taken(connection, prompt_id):
        raise WorkflowRejected("prompt_id_in_use", "The prompt_id is already in use", prompt_id)


def _read_prompt(body: Mapping[str, Any]) -> tuple[PromptRecord, str]:
    """Return the submitted workflow and the id of its prompt: the client's if it is a UUID, else a new one."""
    if "prompt" not in body:
        raise WorkflowRejected("no_prompt", "No prompt provided", "No prompt provided")
    if not isinstance(body["prompt"], dict):
        raise WorkflowRejected("invalid_prompt", "The prompt must be an object of nodes by id")
    extra = body.get("extra_data", {})
    if not isinstance(extra, dict):
        raise WorkflowRejected("invalid_request", "extra_data must be an object")
    client_id = body.get("client_id") or extra.get("client_id")
    if client_id is not None and not (isinstance(client_id, str) and len(client_id) <= MAX_ID_LENGTH):
        raise WorkflowRejected("invalid_request", f"client_id must be a string of at most {MAX_ID_LENGTH} characters")
    extra = {name: value for name, value in extra.items() if name not in SECRETS}
    prompt_id = str(uuid.uuid4())
    with contextlib.suppress(ValueError):
        prompt_id = str(uuid.UUID(str(body.get("prompt_id"))))
    return PromptRecord(body["prompt"], [], client_id, extra), prompt_id


def _input_image_names(prompt: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the images that a workflow loads."""
    for node in prompt.values():
        kind = TYPES.get(str(node.get("class_type"))) if isinstance(node, dict) else None
        inputs = node.get("inputs") if kind else None
        if kind and isinstance(inputs, dict):
            for name, declared in kind.inputs.items():
                if declared.list_name == "images" and isinstance(inputs.get(name), str):
                    yield strip_folder(inputs[name])


def _translate(
    prompt_record: PromptRecord, model_catalog: Catalog, prompt_id: str, limits: Limits
) -> tuple[ValidatedWorkflow, PromptRecord, Batch]:
    checked = check(prompt_record.prompt, model_catalog, limits)
    prompt_record = PromptRecord(
        prompt_record.prompt, checked.outputs, prompt_record.client_id, prompt_record.extra_data
    )
    return checked, prompt_record, batch_of(prompt_record, checked, model_catalog, prompt_id, limits)


def _is_first(body: Mapping[str, Any]) -> bool:
    number = body.get("number")
    return bool(body.get("front")) or (isinstance(number, int | float) and number < 0)


@routes.get("/queue")
async def get_queue(user: Caller, connection: Read) -> Response:
    """List the caller's running and pending prompts."""
    return json_response(await history.queue(connection, user))


@routes.post("/queue")
async def post_queue(request: Request, needs: Needs, user: Caller) -> Response:
    """Delete pending prompts: all, or those named."""
    body = await read_object(request)
    for item_filter in _item_filters(body, user.user_id, needs.settings.limits.names):
        await service.delete_idle(needs, item_filter)
    return Response()


@routes.get("/history")
async def get_history(request: Request, user: Caller, connection: Read) -> Response:
    """List the caller's prompts that have ended, oldest first; without `max_items` the newest hundred."""
    newest = _query_number(request, "max_items", history.DEFAULT_LENGTH)
    offset = _query_number(request, "offset", 0)
    items = await store.list_items(
        connection, user, statuses=TERMINAL, newest=newest if offset <= 0 else store.MAX_ROWS
    )
    if offset > 0:
        items = items[offset : offset + newest]
    return json_response(await history.entries_of(connection, items))


def _query_number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if not text:
        return default
    try:
        value = int(text[:MAX_ID_LENGTH])
    except ValueError as error:
        raise RequestRejected("must be an integer", name) from error
    return default if value < 0 else min(value, store.MAX_ROWS)


@routes.get("/history/{prompt_id}")
async def get_history_of(user: Caller, connection: Read, prompt_id: str) -> Response:
    """Get one prompt that has ended; empty if it has not, or does not exist."""
    return json_response(await history.entries(connection, user, prompt_ids=[prompt_id]))


@routes.post("/history")
async def post_history(request: Request, needs: Needs, user: Caller) -> Response:
    """Delete prompts that have ended: all, or those named. Their images stay."""
    body = await read_object(request)
    for item_filter in _item_filters(body, user.user_id, needs.settings.limits.names):
        await service.prune(needs, item_filter)
    return Response()


def _item_filters(body: Mapping[str, Any], user_id: str, limit: int) -> Iterator[ItemFilter]:
    """Yield the filters for `clear` and `delete`."""
    ids = body.get("delete", [])
    if not isinstance(ids, list) or len(ids) > limit or not all(isinstance(prompt_id, str) for prompt_id in ids):
        raise RequestRejected(f"must be a list of at most {limit} prompt ids (setting limits.names)", "delete")
    owner_fields = {"queue_id": service.DEFAULT_QUEUE, "destination": NAME, "owner": user_id}
    if body.get("clear"):
        yield ItemFilter(**owner_fields)
    elif ids:
        yield ItemFilter(**owner_fields, batch_ids=ids)


@routes.post("/interrupt")
async def interrupt(request: Request, needs: Needs, user: Caller) -> Response:
    """Cancel the caller's running prompt, or only the one that is named."""
    prompt_id = (await read_object(request)).get("prompt_id")
    prompt_ids = None if prompt_id is None else [str(prompt_id)]
    async with needs.database.read() as connection:
        running = await store.list_items(connection, user, statuses=("in_progress", "waiting"), prompt_ids=prompt_ids)
    for item in running:
        with contextlib.suppress(NotFound):  # deleted in the meantime
            await service.cancel(needs, service.DEFAULT_QUEUE, item.item_id, user=user)
    return Response()


# Nodes, models, system


@routes.get("/object_info")
async def object_info(user: Caller, connection: Read) -> Response:
    """Describe the supported nodes, with the models that they accept."""
    model_catalog = await catalog.read(connection, user)
    return json_response({name: kind.describe(model_catalog) for name, kind in TYPES.items()})


@routes.get("/object_info/{name}")
async def object_info_of(user: Caller, connection: Read, name: str) -> Response:
    """Describe one node; empty if it is not supported."""
    kind = TYPES.get(name)
    return json_response({name: kind.describe(await catalog.read(connection, user))} if kind else {})


@routes.get("/models")
async def model_folders(_user: Caller) -> Response:
    """List the model folders."""
    return json_response(list(FOLDERS))


@routes.get("/models/{folder}")
async def models_in(user: Caller, connection: Read, folder: str) -> Response:
    """List the models in a folder."""
    if folder not in FOLDERS:
        raise HTTPException(404, f"unknown folder {folder!r}")
    return json_response((await catalog.read(connection, user)).names(FOLDERS[folder]))


@routes.get("/embeddings")
async def list_embeddings(user: Caller, connection: Read) -> Response:
    """List the textual inversions, which prompts apply as `embedding:name`."""
    return json_response((await catalog.read(connection, user)).names("embeddings"))


@routes.get("/extensions")
async def list_extensions(_user: Caller) -> Response:
    """List the frontend extensions: there are none."""
    return json_response([])


@routes.get("/features")
async def features(_user: Caller, needs: Needs) -> Response:
    """Get the features of this server."""
    return json_response(
        {"supports_preview_metadata": False, "max_upload_size": needs.settings.limits.image_file_mib * MIB}
    )


@routes.get("/system_stats")
async def system_stats(needs: Needs, _user: Caller) -> Response:
    """Get system information. The memory of GPUs is known only to the workers and reported as 0."""
    memory = psutil.virtual_memory()
    kind = needs.settings.device.partition(":")[0]
    total, free = (memory.total, memory.available) if kind == "cpu" else (0, 0)
    device = {"name": needs.settings.device, "type": kind, "index": 0}
    sizes = {"vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}
    system = {
        "os": platform.system().lower(),
        "ram_total": memory.total,
        "ram_free": memory.available,
        "comfyui_version": COMFYUI_VERSION,
        "invokeclone_version": __version__,
        "python_version": sys.version,
        "pytorch_version": version("torch"),
        "embedded_python": False,
        "argv": [],
    }
    return json_response({"system": system, "devices": [device | sizes]})


class AdminRequired(Forbidden):
    """The operation requires an administrator."""


@routes.post("/free")
async def free(user: Caller, workers: NeedsWorkers) -> Response:
    """Unload the models that the workers are not using."""
    if not user.is_admin:
        raise AdminRequired("only an administrator may unload models")
    await caches.empty_caches(workers)
    return Response()


# Images


@routes.get("/view")
async def view(request: Request, needs: Needs, user: Caller) -> Response:
    """Get an image: `preview=webp;90` re-encodes it, `channel` is rgba, rgb or a."""
    query = request.query_params
    name = strip_folder(query.get("filename", ""))
    if not name:
        raise RequestRejected("the name of an image is missing", "filename")
    path = await _file(needs, name, user)
    channel = query.get("channel", "rgba")
    preview, _, quality = query.get("preview", "").partition(";")
    if not preview and channel not in ("rgb", "a") and await image_io.is_upright(path):
        return FileResponse(path, media_type="image/png", filename=name, content_disposition_type="inline")
    format_: image_io.Format = "png" if not preview else "jpeg" if preview in ("jpeg", "jpg") else "webp"
    is_number = quality.isascii() and quality.isdigit() and len(quality) < 4  # noqa: PLR2004  (digits)
    quality_value = min(max(int(quality), 1), 100) if is_number else None

    def encode() -> bytes:
        with open_stored_image(path) as image:
            return image_io.encode(_channel(image_io.read_upright(image), channel), format_, quality_value)

    data = await image_io.image_work(encode)
    return Response(data, media_type=image_io.MIME[format_])


async def _file(resources: Resources, name: str, user: User) -> Path:
    """Return the path of an image file; raises ImagesMoving, ImageNotYours, ImageNotFound."""
    _check_not_moving(resources)
    path = await images.path(resources, name, user=user)
    if not await in_thread(path.is_file):
        raise ImageNotFound(name)
    return path


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
    """Store an image for workflows to load; the server chooses its name."""
    _check_not_moving(needs)
    async with request.form(max_files=1, max_fields=20) as form:
        image = await _read_upload(needs, form)
    return _upload_response(await image_io.save_intermediate(needs, image, user))


@routes.post("/upload/mask")
async def upload_mask(request: Request, needs: Needs, user: Caller) -> Response:
    """Store a copy of the image named by `original_ref`, with the alpha channel of the uploaded one."""
    async with request.form(max_files=1, max_fields=20) as form:
        mask = await _read_upload(needs, form)
        original = _original_name(form, needs.settings.limits)
    path = await _file(needs, original, user)

    def apply_mask() -> Image.Image:
        with open_stored_image(path) as image:
            result = convert(image_io.read_upright(image), "RGBA")
        alpha = convert(mask, "RGBA").getchannel("A").resize(result.size)
        result.putalpha(alpha)
        return result

    return _upload_response(await image_io.save_intermediate(needs, await image_io.image_work(apply_mask), user))


async def _read_upload(resources: Resources, form: FormData) -> Image.Image:
    """Return the image of a form, as RGB or RGBA."""
    file = form.get("image")
    if not isinstance(file, UploadFile):
        raise RequestRejected("the file is missing", "image")
    image = await image_io.decode_image(resources, await file.read(), "image")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return await image_io.image_work(lambda: convert(image, mode))


def _original_name(form: FormData, limits: Limits) -> str:
    try:
        reference = decode_text(str(form.get("original_ref", "")), limits)
    except json.JSONDecodeError as error:
        raise RequestRejected("not valid JSON", "original_ref") from error
    name = reference.get("filename") if isinstance(reference, dict) else None
    if not isinstance(name, str) or not name:
        raise RequestRejected("must name an image in `filename`", "original_ref")
    return strip_folder(name)


def _upload_response(name: str) -> Response:
    return json_response({"name": name, "subfolder": "", "type": "input"})


# WebSocket


@routes.websocket("/ws")
async def socket(websocket: WebSocket, needs: Needs, identity: Identity) -> None:
    """Send a client the progress of its prompts."""
    client_id = websocket.query_params.get("clientId", "")[:MAX_ID_LENGTH] or uuid.uuid4().hex

    async def check_access() -> object:
        return await caller(websocket, needs, await identify(websocket))

    try:
        user = await caller(websocket, needs, identity)
        await clients_of(websocket).serve(websocket, user, client_id, check_access)
    except InvokeCloneError as error:
        await websocket.send_denial_response(render(problem_of(error)))


def paths() -> list[str]:
    """Return the paths of the routes, each up to its first parameter."""
    return sorted(
        {route.path.partition("{")[0] for route in routes.routes if isinstance(route, Route | WebSocketRoute)}
    )


router = APIRouter(include_in_schema=False)
for _prefix in PREFIXES:
    router.include_router(routes, prefix=_prefix)
