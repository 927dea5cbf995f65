"""A joined worker inside a process that an engine has started on a node of a cluster.

The agent runs in a thread of its own, which lasts as long as its worker process: on Linux, a process that ends with its
parent ends with the thread that started it. All methods return at once.
"""

import asyncio
import os
import platform
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import SettingsError, load_settings
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.server.joined.address import ServerAddress
from invokeclone.server.joined.agent import Agent
from invokeclone.server.joined.protocol import clean_name
from invokeclone.server.supervision.launch import COMMAND

TOKEN_VARIABLE = "INVOKECLONE_WORKER_TOKEN"  # noqa: S105  (a name)
NEW, STOPPED = "new", "stopped"
REFUSED, FAILED = "refused", "failed"
"""Beginnings of states: the server refuses the worker; it cannot run on this node."""

_log = log.get("cluster.host")


class WorkerHost:
    """Runs the agent of one worker. States are texts: `new`, `starting`, the agent's, `refused: …`, `failed: …`, `stopped`."""

    def __init__(
        self, url: str, label: str, *, device: str, root: Path | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        """Create without starting; `label` is unique in the cluster and becomes part of the worker's name."""
        self._address = ServerAddress(url)
        self._label = label
        self._device = device
        self._root = root
        self._command = tuple(command)
        self._state = NEW
        self._thread: threading.Thread | None = None
        self._stop: Callable[[float], None] | None = None
        self._stopping: float | None = None

    def start(self, token: str | None = None) -> str:
        """Start the agent unless it runs; the token in the node's environment goes before `token`. Return the name."""
        if self._thread is None:
            # Nodes of packs need not see it. A secret read from a file ends with a line break.
            token = os.environ.pop(TOKEN_VARIABLE, "").strip() or token
            self._state = "starting"
            self._thread = threading.Thread(target=self._run, args=(token,), name="worker agent", daemon=True)
            self._thread.start()
        return self.name

    def state(self) -> str:
        """Return the worker's state."""
        return self._state

    def stop(self, drain_s: float) -> None:
        """Stop the agent; a running item may end within `drain_s` seconds. A second call with 0 interrupts it."""
        self._stopping = drain_s
        if self._stop is not None:
            self._stop(drain_s)
        elif self._thread is None:
            self._state = STOPPED

    @property
    def name(self) -> str:
        """The worker's name on the server: the node's host name and the label."""
        return clean_name(f"{platform.node().split('.')[0][-40:]}-{self._label}")

    def _run(self, token: str | None) -> None:
        try:
            if not token:
                self._state = f"{REFUSED}: this node has no worker token: set {TOKEN_VARIABLE} where the command runs"
                return
            asyncio.run(self._join(_settings(self._root), token))
        except SettingsError as error:
            self._state = f"{FAILED}: {'; '.join(error.lines)}"
        except InvokeCloneError as error:
            self._state = f"{REFUSED}: {error}"
        except Exception as error:  # noqa: BLE001  (the thread of the agent must not end unnoticed)
            _log.exception("the worker's agent has failed")
            self._state = f"{FAILED}: {type(error).__name__}: {error}"
        else:
            self._state = STOPPED

    async def _join(self, settings: Settings, token: str) -> None:
        agent = Agent(
            self._address,
            token,
            settings=settings,
            name=self.name,
            device=self._device,
            command=self._command,
            on_state=self._note,
        )
        loop = asyncio.get_running_loop()
        self._stop = lambda drain_s: _call_on(loop, agent.stop, drain_s)
        if self._stopping is not None:
            agent.stop(self._stopping)
        await agent.run()

    def _note(self, state: str) -> None:
        self._state = state


def _call_on(loop: asyncio.AbstractEventLoop, act: Callable[[float], None], value: float) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(act, value)


def _settings(root: Path | None) -> Settings:
    """Return the settings of this node, and set up logging."""
    settings, _unknown = load_settings(root)
    log.set_up(
        settings.log_level,
        settings.log_format,
        settings.log_handlers,
        network_level=settings.log_level_network,
        as_json=settings.log_json,
    )
    return settings
