"""`invokeclone serve`: find a free port, print the server's address, serve until SIGINT or SIGTERM."""

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import socket
import sys
from collections.abc import Awaitable, Iterator

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from invokeclone.cli import server_environment
from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.files.root_lock import RootLock
from invokeclone.kit.files.storage_errors import startup_line
from invokeclone.kit.requests import Application
from invokeclone.kit.sql import migrations
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.kit.storage import addresses
from invokeclone.server.app import create_app
from invokeclone.server.sockets import Sockets

PORTS_TRIED = 100
KEEP_ALIVE_SECONDS = 75
"""Idle time after which a connection is closed; a request sent just as it closes sees a connection reset."""
GRACE_SECONDS = 3
BACKLOG = 2048

_log = log.get("serve")


def run(arguments: argparse.Namespace) -> int:
    """Serve; return 0 after a graceful shutdown, 1 when the server could not start.

    Raises an error that the command prints in one line when another server runs on the root, or when the database, the
    storage or the address cannot be used.
    """
    settings = settings_for(arguments, uses=(), host=arguments.host, port=arguments.port)
    database = None if settings.use_memory_db else open_database(settings)
    if database is not None:
        asyncio.run(database.check(migrations.revisions()))
    lock = RootLock(settings.root)
    lock.acquire()
    try:
        if database is not None:
            server_environment.check_server(settings)
            asyncio.run(_migrate(database))
        addresses.check(settings, addresses.open_storage(settings))
        listening = listen(settings.host, settings.port)
        app = create_app(settings, migrated=database)
        server = _Server(_config(app, settings), app, settings, lock)
        with listening, contextlib.suppress(SystemExit):  # uvicorn raises it when the startup failed
            server.run(sockets=[listening])
    finally:
        lock.release()
    return 0 if server.started else 1


async def _migrate(database: Database) -> None:
    """Migrate before the application starts, so that a problem with the database is reported in one line."""
    try:
        await database.migrate()
        async with database.write():
            pass
    finally:
        await database.close()


class _Server(uvicorn.Server):
    """Server that prints its address once it answers, and closes its WebSockets before it waits for connections."""

    def __init__(self, config: uvicorn.Config, app: Application, settings: Settings, lock: RootLock) -> None:
        super().__init__(config)
        self._lock = lock
        self._app = app
        self._settings = settings

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.services.get(Sockets).close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM without raising them again after the shutdown."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # these objects stay: scanning them in a full collection pauses the process for 150 ms
        if self.started and sockets:
            scheme = "https" if self._settings.ssl_certfile else "http"
            host = self._settings.host
            display_host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104  (a comparison, not a binding)
            display_host = f"[{display_host}]" if ":" in display_host else display_host
            port = sockets[0].getsockname()[1]
            address = f"{scheme}://{display_host}:{port}{self._settings.base_url or ''}"
            self._lock.write(address)
            self._record_environment()
            sys.stdout.write(f"invokeclone is at {address}\n")
            sys.stdout.flush()

    def _record_environment(self) -> None:
        """Record it only now: an attempt to start that fails must not become what commands and servers compare with."""
        if self._settings.use_memory_db:
            return
        try:
            server_environment.record(self._settings)
        except OSError as error:
            file = self._settings.root / server_environment.FILE
            _log.warning("%s cannot be written: %s", file, error.strerror, extra={"action": "record_environment"})


class _OneLineStartupErrors:
    """Reports startup failures of disks and the database in one line; other failures keep their traceback."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Hand requests on as they are: only the start is looked at."""
        if scope["type"] != "lifespan":
            return self._app(scope, receive, send)
        return self._start(scope, receive, send)

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        failed: list[Message] = []

        async def hold(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold)
        except Exception as error:
            for message in failed:
                line = str(error) if isinstance(error, InvokeCloneError) else startup_line(error)
                await send({**message, "message": line} if line else message)
            raise


def _config(app: Application, settings: Settings) -> uvicorn.Config:
    for name in ("uvicorn", "uvicorn.error"):
        uvicorn_logger = logging.getLogger(name)
        uvicorn_logger.handlers = list(logging.getLogger(log.ROOT).handlers)
        uvicorn_logger.propagate = False
        uvicorn_logger.setLevel(max(logging.WARNING, logging.getLogger(log.ROOT).level))
    return uvicorn.Config(
        _OneLineStartupErrors(app),
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="invokeclone.server.http.websocket_protocol:WebSocketProtocol",
        ws_max_size=settings.limits.socket_message_kib * 1024,
        proxy_headers=False,  # the application reads them, after checking where a request came from
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket listening on `port` or the next free one; raises CommandError if none of PORTS_TRIED is free."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CommandError(f"no such address: {host}") from error
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], candidate, *address[2:]))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise CommandError(f"cannot listen on {host}:{candidate}: {error.strerror}") from error
        if candidate != port:
            sys.stderr.write(f"invokeclone: port {port} is busy, using {candidate}\n")
        return listener
    raise CommandError(f"no free port at or above {port}")
