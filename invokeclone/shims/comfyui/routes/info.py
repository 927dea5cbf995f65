"""Routes of nodes, models and the system."""

import platform
import sys
from importlib.metadata import version

import psutil
from fastapi import Request, Response

from invokeclone.kit.config.limits import MIB
from invokeclone.kit.errors import Forbidden, NotFound
from invokeclone.kit.requests import Needs, NeedsWorkers, Read
from invokeclone.models.records import caches
from invokeclone.shims.comfyui import catalog
from invokeclone.shims.comfyui.catalog import FOLDERS
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.routes.routing import routes
from invokeclone.shims.compat_api import json_response, read_object
from invokeclone.users.caller import Caller
from invokeclone.version import __version__

COMFYUI_VERSION = "0.3.60"
"""The version of ComfyUI's API that is reported to clients."""


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
    return json_response((await catalog.read(connection, user)).names(_list_of(folder)))


@routes.get("/experiment/models")
async def model_folder_entries(_user: Caller) -> Response:
    """List the model folders with their paths and extensions, which are those of records and therefore empty."""
    return json_response([{"name": name, "folders": [], "extensions": []} for name in FOLDERS])


@routes.get("/experiment/models/{folder}")
async def model_entries_in(user: Caller, connection: Read, folder: str) -> Response:
    """List the models in a folder, with their sizes in bytes."""
    return json_response(
        [
            {"name": config.name, "pathIndex": 0, "size": config.file_size}
            for config in (await catalog.read(connection, user)).configs(_list_of(folder))
        ]
    )


@routes.get("/view_metadata/{folder}")
async def view_metadata(request: Request, user: Caller, connection: Read, folder: str) -> Response:
    """Describe the model `filename` of a folder: title, description, trigger words."""
    name = request.query_params.get("filename", "")
    config = (await catalog.read(connection, user)).model(_list_of(folder), name)
    if config is None:
        raise NoModelInFolder(f"unknown model {name!r}")
    metadata = {
        "modelspec.title": config.name,
        "modelspec.architecture": str(config.base),
        "modelspec.description": config.description,
        "modelspec.trigger_phrase": ", ".join(getattr(config, "trigger_phrases", None) or ()),
    }
    return json_response({name: value for name, value in metadata.items() if value})


def _list_of(folder: str) -> str:
    """Return the list of the catalog for a folder; raises NoModelFolder."""
    if folder not in FOLDERS:
        raise NoModelFolder(f"unknown folder {folder!r}: use one of {', '.join(FOLDERS)}")
    return FOLDERS[folder]


class NoModelFolder(NotFound):
    """There is no model folder of this name."""


class NoModelInFolder(NotFound):
    """The folder has no model of this name."""


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
async def free(request: Request, user: Caller, workers: NeedsWorkers) -> Response:
    """Unload the models that the workers are not using, if `unload_models` or `free_memory` is true or both are missing."""
    body = await read_object(request)
    if not user.is_admin:
        raise AdminRequired("only an administrator may unload models")
    flags = [body[name] for name in ("unload_models", "free_memory") if name in body]
    if not flags or any(flags):
        await caches.empty_caches(workers)
    return Response()
