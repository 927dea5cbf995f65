"""The agent of a joined worker: runs an unchanged worker process on this machine and connects it to a server.

The agent starts the process, restarts it when it ends, and passes messages between its pipes and a websocket. It keeps
the process running while the connection is cut, and sends unanswered calls again after it has joined again.
"""

import asyncio
import contextlib
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import BadRequest
from invokeclone.queue.bulk import JOINED
from invokeclone.server.joined.address import BadAddress, ServerAddress
from invokeclone.server.joined.process import AgentProcess
from invokeclone.server.joined.protocol import (
    ALIVE_S,
    FRAME_LIMIT,
    PROTOCOL,
    REFUSED,
    SILENCE_S,
    Assembler,
    frames_of,
    merge_settings,
)
from invokeclone.server.supervision.launch import COMMAND, Backoff, start_process
from invokeclone.server.supervision.link import Message, WorkerLink
from invokeclone.server.supervision.workers import explain_exit
from invokeclone.version import __version__

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
STEADY_S = 60.0
"""A process that ran this long is restarted without an increased delay."""
DEFAULT_FRAME = 16 * 1024
MAX_FRAME = 4 * FRAME_LIMIT
"""Maximum bytes of a frame of the server, more than it sends."""

_log = log.get("worker.agent")


class JoinRefused(BadRequest):
    """The server refused the worker; the message is the server's."""


class Agent:
    """Joins a server with one worker process, for one device."""

    def __init__(
        self,
        address: ServerAddress,
        token: str,
        *,
        settings: Settings,
        name: str,
        device: str = "auto",
        command: Sequence[str] = COMMAND,
        grace_s: float = 5.0,
        first_delay_s: float = FIRST_DELAY_S,
        on_state: Callable[[str], None] | None = None,
    ) -> None:
        """Join as `name`; `settings` are this machine's. `on_state` gets each new state of the connection, as text.

        Raises JoinRefused if `token` is none.
        """
        if not (token.isascii() and token.isprintable()):
            raise JoinRefused("the worker token has characters that no token has; give the one that the server printed")
        self._address = address
        self._token = token
        self._settings = settings
        self._name = name
        self._device = device
        self._command = tuple(command)
        self._grace_s = grace_s
        self._first_delay_s = first_delay_s
        self._process = self._new_process()
        self._unreported: list[dict[str, Any]] = []
        self._max_frame = DEFAULT_FRAME
        self._packs: list[str] = []
        self._on_state = on_state or (lambda _state: None)
        self._stopping = asyncio.Event()
        self._drain_ended = asyncio.Event()
        self._drain_s = 0.0
        self._restarts = Backoff(first_delay_s, MAX_DELAY_S)
        self._accepted = False
        """Whether the server accepted the latest connection."""

    def _new_process(self) -> AgentProcess:
        return AgentProcess(f"{JOINED}{self._name}:{self._device}:{secrets.token_hex(8)}")

    def stop(self, drain_s: float = 0.0) -> None:
        """Stop the process and leave the server; a running item may end within `drain_s` seconds, else it is interrupted.

        A later call without `drain_s` interrupts it.
        """
        if drain_s <= 0:
            self._drain_ended.set()
        elif not self._stopping.is_set():
            self._drain_s = drain_s
        self._stopping.set()

    async def run(self) -> None:
        """Join, and join again after each end of the connection, until stopped. Raises JoinRefused, BadAddress."""
        delays, reported = Backoff(self._first_delay_s, MAX_DELAY_S), ""
        try:
            while not self._stopping.is_set():
                # The process may have ended while there was no connection: then its claim must not be renewed.
                reason = await self._serve_once() if self._process.ended is None else self._process.ended
                if self._stopping.is_set():
                    return
                if self._process.ended is not None:
                    await self._pause(self._replace())
                    continue
                if self._accepted:
                    delays.reset()
                    reported = ""
                if reason != reported:
                    _log.warning("not connected to %s: %s; trying again", self._address.url, reason)
                    self._on_state(f"not connected: {reason}")
                    reported = reason
                await self._pause(delays.next())
        finally:
            await self._end_process()

    async def _serve_once(self) -> str:
        """Connect and serve until the connection ends; return why. Raises JoinRefused, BadAddress."""
        self._accepted = False
        try:
            async with self._connect() as socket:
                await self._serve(socket)
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
            return str(error) or type(error).__name__
        except InvalidURI as error:
            raise BadAddress(self._address.url) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return f"the server sent a message that cannot be read ({type(error).__name__}: {error})"
        return "the server closed the connection"

    def _connect(self) -> connect:
        url = self._address.socket_url
        return connect(
            url,
            additional_headers={"Authorization": f"Bearer {self._token}"},
            user_agent_header=f"invokeclone/{__version__}",
            max_size=MAX_FRAME,
            compression=None,
            ping_interval=None,  # `alive` messages are it
            open_timeout=10,
            close_timeout=2,
            ssl=ssl.create_default_context() if url.startswith("wss:") else None,
        )

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    # The process

    async def _start(self, hello: Message) -> None:
        """Start the process with the server's hello."""
        process = self._process
        process.started = time.monotonic()
        process.link = await start_process(self._command, self._device, self._settings, process.receive)
        join = {"url": self._address.url, "token": self._token}
        process.link.send({**hello, "settings": merge_settings(self._settings, hello["settings"]), "join": join})
        self._watching = asyncio.create_task(self._watch(process, process.link), name="worker process")

    async def _watch(self, process: AgentProcess, link: WorkerLink) -> None:
        """Wait for the end of the process and report it."""
        status = await link.wait()
        process.ended = explain_exit(self._device, status)
        if self._stopping.is_set():
            return
        _log.error("%s", process.ended)
        self._on_state(process.ended)
        process.end(process.ended)

    def _replace(self) -> float:
        """Prepare a new process for one that has ended; return the seconds to wait before its start."""
        process = self._process
        assert process.ended is not None
        self._unreported.append({"worker_id": process.worker_id, "reason": process.ended[:500]})
        del self._unreported[:-10]
        is_steady = time.monotonic() - process.started > STEADY_S
        if is_steady:
            self._restarts.reset()
        self._process = self._new_process()
        return 0 if is_steady else self._restarts.next()

    async def _end_process(self) -> None:
        """Stop the process; if the connection is open, the server learns that it was stopped and not that it died."""
        self._stopping.set()
        link = self._process.link
        if link is not None and self._process.ended is None:
            await link.end(self._grace_s)
            await self._watching

    # The connection

    async def _serve(self, socket: ClientConnection) -> None:
        """Join and pass messages until the connection or the process ends."""
        process, assembler = self._process, Assembler()
        join = {
            "kind": "join", "protocol": PROTOCOL, "version": __version__, "name": self._name, "device": self._device,
            "worker_id": process.worker_id, "pid": process.link.pid if process.link else 0, "received": process.received,
            "ended": self._unreported,
        }  # fmt: skip
        with contextlib.suppress(ConnectionClosed):  # the server may have refused already, with a message
            await socket.send(orjson.dumps(join).decode())
        hello = await _receive(socket, assembler)
        if hello.get("kind") == "refused":
            raise JoinRefused(str(hello.get("reason"))) if not hello.get("again") else OSError(str(hello.get("reason")))
        if hello.get("kind") != "hello":
            raise OSError(f"{self._address.url} is not a server of invokeclone")
        self._accepted, self._unreported = True, []
        self._max_frame = min(int(hello.get("max_frame") or DEFAULT_FRAME), FRAME_LIMIT)
        _log.info("joined %s for %s", self._address.url, self._device)
        self._on_state("joined")
        await self._greet(process, hello)
        tasks = {
            asyncio.create_task(work, name=name)
            for name, work in (
                ("frames to the server", self._write(socket, process)),
                ("frames from the server", self._read(socket, process, assembler)),
                ("alive", _report_alive(socket)),
                ("stop", self._stop_when_asked(process)),
            )
        }
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _greet(self, process: AgentProcess, hello: Message) -> None:
        """Start the process, or send one that runs what has changed, and the server what it did not receive."""
        packs = list(hello.get("packs") or [])
        if process.ended is not None:
            return
        if process.link is None:
            self._packs = packs
            try:
                await self._start(hello)
            except OSError as error:
                process.ended = f"the worker process cannot be started: {error}"
                process.end(process.ended)
            return
        process.send({"kind": "settings", "settings": merge_settings(self._settings, hello["settings"])})
        if packs != self._packs:
            self._packs = packs
            process.send({"kind": "packs", "names": packs})
        process.repeat()
        process.send({"kind": "wake"})

    async def _write(self, socket: ClientConnection, process: AgentProcess) -> None:
        """Send the process's messages until its last one."""
        while (message := await process.queue.first()) is not None:
            key, line = message
            for frame in frames_of(line, self._max_frame):
                await socket.send(frame)
            process.queue.remove(key, line)

    async def _stop_when_asked(self, process: AgentProcess) -> None:
        """Stop the process, then report it to the server, which returns its item to the queue at once."""
        await self._stopping.wait()
        if process.link is not None and process.ended is None:
            await self._drain(process)
            await process.link.end(self._grace_s)
        process.end("the worker was stopped", stopped=True)
        await asyncio.Event().wait()

    async def _drain(self, process: AgentProcess) -> None:
        """Let the process end its running item, within the given time."""
        if self._drain_ended.is_set():
            return
        process.send({"kind": "drain"})
        ended = asyncio.create_task(self._drain_ended.wait())
        try:
            await asyncio.wait({self._watching, ended}, timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()

    async def _read(self, socket: ClientConnection, process: AgentProcess, assembler: Assembler) -> None:
        while True:
            try:
                message = await _receive(socket, assembler)
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == REFUSED:
                    raise JoinRefused("the server no longer accepts this worker's token") from closed
                raise
            match message.get("kind"):
                case "kill":
                    if process.link is not None:
                        process.link.kill()
                case "settings":
                    settings = merge_settings(self._settings, message["settings"])
                    process.send({"kind": "settings", "settings": settings})
                case "packs":
                    self._packs = list(message.get("names") or [])
                    process.send(message)
                case "alive":
                    pass
                case _:
                    process.send(message)


async def _receive(socket: ClientConnection, assembler: Assembler) -> Message:
    """Return the next message of the server. Raises TimeoutError if nothing comes, ConnectionClosed, InvalidMessage."""
    while True:
        frame = await asyncio.wait_for(socket.recv(), SILENCE_S)
        if (message := assembler.add(frame)) is not None:
            return message


async def _report_alive(socket: ClientConnection) -> None:
    """Send that this machine is alive, also between the frames of a large message."""
    while True:
        await asyncio.sleep(ALIVE_S)
        await socket.send('{"kind":"alive"}')


async def run_agents(agents: Sequence[Agent]) -> None:
    """Run the agents of one machine until all are stopped; one that is refused stops the others."""
    tasks = [asyncio.create_task(agent.run()) for agent in agents]
    try:
        await asyncio.gather(*tasks)
    finally:
        for agent in agents:
            agent.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
