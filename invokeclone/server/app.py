"""The app factory: it puts the rooms together, and starts and stops what lives as long as the server.

Nothing here decides anything about images, queues or models.
"""

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from invokeclone.boards.api import router as boards
from invokeclone.boards.videos_api import router as board_videos
from invokeclone.boards.virtual_api import router as virtual_boards
from invokeclone.custom_nodes.api import router as custom_nodes
from invokeclone.custom_nodes.service import Packs
from invokeclone.graph import registry
from invokeclone.images.api import router as images
from invokeclone.images.downloads import Downloads
from invokeclone.images.downloads_api import router as image_downloads
from invokeclone.images.gallery.api import router as gallery
from invokeclone.images.moves import Moves
from invokeclone.images.moves_api import router as image_moves
from invokeclone.images.videos.api import router as videos
from invokeclone.kit.database import Database
from invokeclone.kit.events import Bus
from invokeclone.kit.offload import off_loop
from invokeclone.kit.resources import Resources
from invokeclone.kit.settings import Settings
from invokeclone.models import embedded, scan
from invokeclone.models import service as models_service
from invokeclone.models.api import router as models
from invokeclone.models.download.api import router as model_downloads
from invokeclone.models.download.queue import Downloads as ModelDownloads
from invokeclone.models.relationships_api import router as model_relationships
from invokeclone.presets import prompts as system_prompts
from invokeclone.presets import service as style_presets
from invokeclone.presets.api import router as presets
from invokeclone.queue import service as queue_service
from invokeclone.queue.api import router as queue
from invokeclone.recall.api import router as recall
from invokeclone.server import authentication, bodies, errors, external, guards, hardware, info, openapi, page, private
from invokeclone.server.departures import Departures
from invokeclone.server.headers import SafeHeaders
from invokeclone.server.origins import OwnOrigin
from invokeclone.server.renewal import Renewal
from invokeclone.server.routing import RouteIndex
from invokeclone.server.sockets import Sockets
from invokeclone.server.supervisor import COMMAND, Supervisor
from invokeclone.shims import routers as shims
from invokeclone.shims.comfyui.sockets import Clients
from invokeclone.shims.runs import Runs
from invokeclone.users.api import router as users
from invokeclone.users.client_state_api import router as client_state
from invokeclone.utilities.api import router as utilities
from invokeclone.utilities.prompts import DynamicPrompts
from invokeclone.workflows import service as workflow_library
from invokeclone.workflows.api import router as workflows

ROUTERS: tuple[APIRouter, ...] = (
    info.router,
    external.router,
    users,
    queue,
    images,
    image_downloads,
    image_moves,
    videos,
    gallery,
    boards,
    board_videos,
    virtual_boards,
    models,
    model_downloads,
    model_relationships,
    client_state,
    recall,
    utilities,
    custom_nodes,
    presets,
    workflows,
)
COMPRESS_FROM = 1_000
"""Bytes from which an answer is compressed."""


class _Prefix:
    """Takes the configured base path off an address where a proxy left it on, and tells the application of it."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == self.prefix or path.startswith(f"{self.prefix}/"):
            path = path.removeprefix(self.prefix) or "/"
        if scope["type"] != "lifespan":
            scope = {**scope, "path": path, "root_path": self.prefix}
        await self.app(scope, receive, send)


class _Compressed(GZipMiddleware):
    """Compresses answers, but not those of dialects whose answers are pictures in base64: that would cost much and save little."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith(shims.PICTURES):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, worker_command: Sequence[str] | None = COMMAND) -> FastAPI:
    """Return the application for `settings`; `worker_command` None: no worker is started and items stay pending."""
    registry.discover()
    registry.restrict(settings.allow_nodes, settings.deny_nodes)
    app = FastAPI(
        title=openapi.TITLE,
        openapi_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=lambda route: route.name,
        separate_input_output_schemas=False,
        dependencies=authentication.by_default(settings),
    )
    bus = Bus()
    settings = _with_scratch_database(app, settings)
    app.state.resources = Resources(settings, Database(settings.database_path, echo=settings.log_sql), bus)
    app.state.bus = bus
    app.state.sockets = Sockets(settings, app.state.resources.database)
    app.state.worker_command = worker_command
    Runs.install(app)
    Clients.install(app)
    errors.install(app)
    routes = RouteIndex(app)
    for router in ROUTERS + shims.ROUTERS:
        routes.include(bodies.read_strictly(router))
    routes.include(_probes())
    page.install(app, settings.root)
    app.state.openapi = openapi.install(app)
    app.mount("/ws", app.state.sockets.app)
    authentication.check(app)
    _add_middleware(app, settings)
    return app


def _with_scratch_database(app: FastAPI, settings: Settings) -> Settings:
    """Return settings whose database is a temporary file when one in memory is asked for: workers must see it too."""
    app.state.scratch = None
    if not settings.use_memory_db:
        return settings
    memory = Path("/dev/shm")  # noqa: S108  (a file system in memory, where there is one)
    app.state.scratch = tempfile.TemporaryDirectory(prefix="invokeclone-", dir=memory if memory.is_dir() else None)
    return settings.model_copy(update={"db_dir": Path(app.state.scratch.name)})


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Add what sees every request; the last one added sees it first."""
    if settings.http_compression_level:
        app.add_middleware(_Compressed, minimum_size=COMPRESS_FROM, compresslevel=settings.http_compression_level)
    app.add_middleware(Renewal)
    app.add_middleware(SafeHeaders, multiuser=settings.multiuser)
    app.add_middleware(guards.ImagesAtRest, resources=app.state.resources)
    app.add_middleware(guards.BodyLimit, limits=settings.limits)
    app.add_middleware(guards.NoNulCharacters)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_credentials=settings.allow_credentials,
            allow_methods=settings.allow_methods,
            allow_headers=settings.allow_headers,
            expose_headers=["X-Refreshed-Token"],
        )
    app.add_middleware(Departures)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.forwarded_allow_ips)
    app.add_middleware(OwnOrigin, settings=settings)
    app.add_middleware(guards.SingleSlashes)
    if settings.base_url:
        app.add_middleware(_Prefix, prefix=settings.base_url)


def _probes() -> APIRouter:
    """Return the routes that whoever watches over the process asks again and again."""
    router = APIRouter()
    for path in ("/health", "/api/v1/health"):
        router.add_api_route(path, _health, include_in_schema=False)
    return router


async def _health() -> dict[str, str]:
    """Answer whoever watches over the process."""
    return {"status": "ok"}


def _packs_changed(app: FastAPI, names: list[str]) -> None:
    """Have the workers load these node packs, and the OpenAPI document made anew."""
    app.state.supervisor.change_packs(names)
    app.state.openapi.forget()


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start database, queue, models, sockets and workers in this order; stop them in reverse."""
    resources: Resources = app.state.resources
    async with contextlib.AsyncExitStack() as stack:
        if app.state.scratch is not None:
            stack.callback(app.state.scratch.cleanup)
        await run_in_threadpool(private.prepare, resources.settings)
        await resources.database.migrate()
        stack.push_async_callback(resources.database.close)
        await queue_service.recover(resources)
        await style_presets.start(resources)
        await system_prompts.start(resources)
        await workflow_library.start(resources)
        app.state.image_moves = Moves(resources)
        await app.state.image_moves.start()
        stack.push_async_callback(app.state.image_moves.stop)
        app.state.image_downloads = Downloads(resources)
        await app.state.image_downloads.start()
        stack.push_async_callback(app.state.image_downloads.stop)
        app.state.downloads = ModelDownloads(resources.settings, resources.events)
        stack.push_async_callback(app.state.downloads.stop)
        installer = models_service.Installer(resources, app.state.downloads, lasting=True)
        app.state.installer = installer
        await installer.start()
        stack.push_async_callback(installer.stop)
        await embedded.register_embedded(resources)
        app.state.dynamic_prompts = DynamicPrompts()
        stack.push_async_callback(app.state.dynamic_prompts.close)
        if resources.settings.scan_models_on_startup:
            await scan.add_found(resources, installer)
        app.state.sockets.listen(app.state.bus)
        stack.push_async_callback(app.state.sockets.close)
        supervisor = Supervisor(
            resources.settings,
            app.state.bus,
            lambda device, reason: queue_service.fail_orphans(resources, device, reason),
            command=app.state.worker_command or (sys.executable,),
        )
        supervisor.hardware = await off_loop(hardware.devices)
        app.state.supervisor = supervisor
        app.state.packs = Packs(resources, lambda names: _packs_changed(app, names))
        await app.state.packs.start()
        stack.callback(app.state.packs.stop)
        if app.state.worker_command is not None:
            await supervisor.start()
            stack.push_async_callback(supervisor.stop)
        yield
