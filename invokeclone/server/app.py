"""The app factory: assembles routers, middleware and services, and starts and stops them with the server.

Contains no domain logic.
"""

import contextlib
import functools
import shutil
import sys
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastapi import APIRouter
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from invokeclone.boards.api import router as boards
from invokeclone.boards.videos_api import router as board_videos
from invokeclone.boards.virtual_api import router as virtual_boards
from invokeclone.custom_nodes.api import router as custom_nodes
from invokeclone.custom_nodes.service import Packs
from invokeclone.downloads.api import router as model_downloads
from invokeclone.downloads.queue import DownloadQueue
from invokeclone.graph.invocations import registry
from invokeclone.images import intent_log
from invokeclone.images.api import router as images
from invokeclone.images.archives.api import router as image_downloads
from invokeclone.images.archives.service import ImageDownloads
from invokeclone.images.gallery.api import router as gallery
from invokeclone.images.relocation.api import router as image_moves
from invokeclone.images.relocation.service import ImageMoves
from invokeclone.images.videos.api import router as videos
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.services import Services
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.kit.storage import addresses
from invokeclone.kit.workers import Workers
from invokeclone.models.api import router as models
from invokeclone.models.install import embedded_model, scan
from invokeclone.models.install import service as models_service
from invokeclone.models.records import changes
from invokeclone.models.records.relationships_api import router as model_relationships
from invokeclone.models.records.served_files import ServedModels
from invokeclone.presets import prompts as system_prompts
from invokeclone.presets import service as style_presets
from invokeclone.presets.api import router as presets
from invokeclone.queue import claims, leases
from invokeclone.queue.api import router as queue
from invokeclone.queue.events import QueueClearedEvent, QueueItemsCanceledEvent, QueueItemStatusChangedEvent
from invokeclone.queue.generation.api import router as model_capabilities
from invokeclone.queue.schemas import TERMINAL
from invokeclone.recall.api import router as recall
from invokeclone.server import external, info, metrics, openapi, page, private_files
from invokeclone.server.http import authentication, bodies, errors, guards
from invokeclone.server.http.compression import CompressedBodies
from invokeclone.server.http.disconnects import ClientDisconnects
from invokeclone.server.http.headers import SafeHeaders
from invokeclone.server.http.origins import OwnOrigin
from invokeclone.server.http.routing import RouteIndex
from invokeclone.server.http.token_renewal import TokenRenewal
from invokeclone.server.joined.api import router as joined_workers
from invokeclone.server.joined.service import JoinedWorkers
from invokeclone.server.peers.events import PeerEvents
from invokeclone.server.peers.hints import PeerHints
from invokeclone.server.sockets import Sockets
from invokeclone.server.supervision import hardware
from invokeclone.server.supervision.launch import COMMAND
from invokeclone.server.supervision.lease_keeper import LeaseKeeper
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.webui import WebUI
from invokeclone.shims import routers as shims
from invokeclone.shims.automatic1111.jobs import Jobs
from invokeclone.shims.batch_follower import BatchFollower
from invokeclone.shims.comfyui.sockets import Clients
from invokeclone.shims.runs import Runs
from invokeclone.users import store as accounts
from invokeclone.users.api import router as users
from invokeclone.users.attempts import Attempts
from invokeclone.users.client_state_api import router as client_state
from invokeclone.utilities.api import router as utilities
from invokeclone.utilities.prompts import PromptExpander
from invokeclone.webhooks.api import router as webhooks
from invokeclone.webhooks.sender import WebhookSender
from invokeclone.worker.backend.api import router as worker_files
from invokeclone.worker.backend.joined import run_operation
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
    model_capabilities,
    client_state,
    recall,
    utilities,
    custom_nodes,
    joined_workers,
    presets,
    workflows,
    webhooks,
    worker_files,
)
ITEM_EVENTS = (QueueItemStatusChangedEvent, QueueItemsCanceledEvent, QueueClearedEvent)
"""Events after which webhook events may have to be sent."""
COMPRESS_FROM = 1_000
"""Minimum size in bytes of a response that is compressed."""


class _Prefix:
    """Strips the configured base path from a request path, if a proxy left it there, and sets it as `root_path`."""

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
    """Compresses responses, except those of compatibility APIs that return base64 images: these hardly shrink."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith(shims.IMAGE_PREFIXES):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(
    settings: Settings, *, worker_command: Sequence[str] | None = COMMAND, migrated: Database | None = None
) -> Application:
    """Return the application for `settings`; with `worker_command` None no worker starts and items stay pending.

    Without a `migrated` database, it opens and migrates the one of the settings.
    """
    registry.discover()
    registry.restrict(settings.allow_nodes, settings.deny_nodes)
    settings, remove_scratch = _with_scratch_database(settings)
    app = Application(
        title=openapi.TITLE,
        openapi_url=None,
        lifespan=functools.partial(
            _lifespan, remove_scratch=remove_scratch, worker_command=worker_command, is_migrated=migrated is not None
        ),
        generate_unique_id_function=lambda route: route.name,
        separate_input_output_schemas=False,
        dependencies=authentication.by_default(settings),
    )
    weakref.finalize(app, remove_scratch)  # also of an application that is never started
    services, bus = app.services, app.services.add(Bus, Bus())
    database = migrated or open_database(settings)
    resources = services.add(Resources, Resources(settings, database, bus))
    sockets = services.add(Sockets, Sockets(settings, database))
    follower = services.add(BatchFollower, BatchFollower(resources, bus))
    services.add(Runs, Runs(resources, follower))
    services.add(ServedModels, ServedModels(resources))
    services.add(Jobs, Jobs(resources, follower, bus))
    services.add(Clients, Clients(resources, follower, bus))
    errors.install(app)
    routes = RouteIndex(app)
    for router in ROUTERS + shims.ROUTERS:
        routes.include(bodies.read_strictly(router))
    routes.include(_probes())
    official = WebUI(settings.root)
    routes.include(page.router(official, addresses.media_origin(settings), multiuser=settings.multiuser))
    app.router.default = official.with_fallback(app.router.default)
    services.add(openapi.Document, openapi.install(app))
    app.mount("/ws", sockets.app)
    authentication.check(app)
    _add_middleware(app, resources)
    return app


def _with_scratch_database(settings: Settings) -> tuple[Settings, Callable[[], None]]:
    """Return `settings`, for `use_memory_db` with a temporary folder for the database file, and what removes the folder.

    A file, because worker processes have to open the database too.
    """
    if not settings.use_memory_db:
        return settings, _do_nothing
    memory = Path("/dev/shm")  # noqa: S108  (an in-memory file system, where the OS has one)
    folder = tempfile.mkdtemp(prefix="invokeclone-", dir=memory if memory.is_dir() else None)
    return settings.model_copy(update={"db_dir": Path(folder)}), functools.partial(shutil.rmtree, folder, True)


def _do_nothing() -> None:
    """Remove nothing."""


def _add_middleware(app: Application, resources: Resources) -> None:
    """Add the middleware; the last one added is the outermost."""
    settings = resources.settings
    if settings.http_compression_level:
        app.add_middleware(_Compressed, minimum_size=COMPRESS_FROM, compresslevel=settings.http_compression_level)
    app.add_middleware(TokenRenewal)
    app.add_middleware(SafeHeaders, multiuser=settings.multiuser)
    app.add_middleware(guards.ImageMoveGuard, resources=resources)
    app.add_middleware(guards.BodyLimit, limits=settings.limits)
    app.add_middleware(CompressedBodies)
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
    app.add_middleware(ClientDisconnects)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.forwarded_allow_ips)
    app.add_middleware(OwnOrigin, settings=settings)
    metrics.install(app, enabled=settings.metrics)
    app.add_middleware(guards.SingleSlashes)
    if settings.base_url:
        app.add_middleware(_Prefix, prefix=settings.base_url)


def _probes() -> APIRouter:
    """Return the health check routes."""
    router = APIRouter()
    for path in ("/health", "/api/v1/health"):
        router.add_api_route(path, _health, include_in_schema=False)
    return router


async def _health() -> dict[str, str]:
    """Respond to a health check."""
    return {"status": "ok"}


@contextlib.asynccontextmanager
async def _lifespan(
    app: Application, *, remove_scratch: Callable[[], None], worker_command: Sequence[str] | None, is_migrated: bool
) -> AsyncIterator[None]:
    """Start database, queue, models, sockets and workers, in this order; stop them in reverse order."""
    services = app.services
    resources, bus = services.get(Resources), services.get(Bus)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(remove_scratch)
        await off_loop(lambda: private_files.prepare(resources.settings))
        if not is_migrated:
            await resources.database.migrate()
        stack.push_async_callback(resources.database.close)
        stack.push_async_callback(_stop_tasks, services)
        await claims.recover(resources, shared=resources.database.is_shared)
        await _start_library(stack, services)
        downloads = services.add(
            DownloadQueue,
            DownloadQueue(resources.settings, bus, reserved=lambda: changes.list_model_paths(resources)),
        )
        stack.push_async_callback(downloads.stop)
        installer = services.add(
            models_service.Installer, models_service.Installer(resources, downloads, persistent=True)
        )
        await _start(stack, installer)
        await embedded_model.register_embedded(resources)
        expander = services.add(PromptExpander, PromptExpander())
        stack.push_async_callback(expander.close)
        if resources.settings.scan_models_on_startup:
            await scan.install_unregistered(resources, installer)
        webhook_sender = services.add(WebhookSender, WebhookSender(resources))
        await _start(stack, webhook_sender)
        bus.subscribe(functools.partial(_wake_sender, webhook_sender), *ITEM_EVENTS, only_own=True)
        sockets = services.get(Sockets)
        sockets.listen(bus)
        stack.push_async_callback(sockets.close)
        supervisor = Supervisor(
            resources.settings,
            bus,
            functools.partial(_worker_died, resources),
            command=worker_command or (sys.executable,),
        )
        supervisor.hardware = await off_loop(hardware.devices)
        await _start(stack, LeaseKeeper(resources, supervisor))
        services.add(Supervisor, supervisor)
        if resources.database.is_shared:
            await _connect_peers(stack, services, supervisor)
        joined = services.add(JoinedWorkers, JoinedWorkers(resources, supervisor, run_operation))
        stack.push_async_callback(joined.stop)
        services.add(Workers, supervisor)
        packs = services.add(Packs, Packs(resources, functools.partial(_packs_changed, services)))
        await packs.start()
        stack.callback(packs.stop)
        if worker_command is not None:
            await supervisor.start()
            stack.push_async_callback(_stop_workers, resources, supervisor)
        yield


async def _start_library(stack: contextlib.AsyncExitStack, services: Services) -> None:
    """Settle interrupted changes of image files, and start what images, presets and workflows need."""
    resources = services.get(Resources)
    await intent_log.settle_all(resources, alone=True)
    settling = intent_log.regular_settling(resources)
    settling.start()
    stack.push_async_callback(settling.stop)
    await style_presets.start(resources)
    await system_prompts.start(resources)
    await workflow_library.start(resources)
    await _start(stack, services.add(ImageMoves, ImageMoves(resources)))
    await _start(stack, services.add(ImageDownloads, ImageDownloads(resources)))


async def _connect_peers(stack: contextlib.AsyncExitStack, services: Services, supervisor: Supervisor) -> None:
    """Exchange hints and events with the other servers on a shared database."""
    resources, bus = services.get(Resources), services.get(Bus)
    services.get(ImageMoves).listen(bus)
    services.get_or_make(Attempts).connect(bus)
    database = resources.database
    from invokeclone.kit.sql.postgres_database import PostgresDatabase  # imports its driver

    assert isinstance(database, PostgresDatabase)
    hints = PeerHints(database, supervisor.hints.apply)
    supervisor.hints.share = hints.share
    await _start(stack, hints)
    if resources.settings.events_url is not None:
        async with database.write() as connection:
            secret = await accounts.secret(connection)
        await _start(stack, PeerEvents(resources.settings.events_url, secret, bus))


async def _stop_workers(resources: Resources, supervisor: Supervisor) -> None:
    """Stop the workers; on a shared database their items are for the workers of other servers, without being counted."""
    worker_ids = supervisor.local_worker_ids
    await supervisor.stop()
    if resources.database.is_shared:
        for worker_id in worker_ids:
            await leases.interrupt(resources, worker_id, "its server was stopped", counted=False)


class _Startable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def _start(stack: contextlib.AsyncExitStack, service: _Startable) -> None:
    """Start a service, which is stopped at the end of the stack."""
    await service.start()
    stack.push_async_callback(service.stop)


async def _stop_tasks(services: Services) -> None:
    """Stop the background tasks of services that need no start."""
    await services.get(BatchFollower).stop()
    await services.get(ServedModels).close()


async def _worker_died(resources: Resources, worker_id: str, reason: str) -> None:
    """Fail what the worker was running, and remove what it had half-written."""
    await claims.fail_orphans(resources, worker_id, reason)
    await intent_log.settle_all(resources)


def _wake_sender(sender: WebhookSender, kind: type[Event], payload: dict[str, Any]) -> None:
    """Send the webhook events that were written with the end of an item."""
    if kind is not QueueItemStatusChangedEvent or payload["status"] in TERMINAL:
        sender.wake()


def _packs_changed(services: Services, names: list[str]) -> None:
    """Reload the node packs in the workers and invalidate the OpenAPI document."""
    services.get(Supervisor).change_packs(names)
    services.get(openapi.Document).forget()
