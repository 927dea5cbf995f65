"""The workers of a cluster: keeps the wanted number, starts those that the engine has placed, and reports changes of state.

An engine restarts the process of a worker whose node or process has died, and says nothing about items: the server
returns them to the queue. So an error of an engine's call means no more than "ask again".
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from invokeclone.cluster.host import FAILED, NEW, REFUSED, STOPPED
from invokeclone.kit.errors import BadRequest

POLL_S = 1.0
ANSWER_S = 10.0
"""Seconds after which a worker that does not answer is reported as such."""
REPLACE_S = 15.0
"""Seconds until a worker that is gone, or cannot run on its node, is replaced."""
STOP_S = 20.0
"""Seconds in addition to the drain in which a worker must stop; its process is ended then."""
NO_ANSWER = "the cluster does not answer"


class WorkerRefused(BadRequest):
    """A worker cannot join, whatever its node: the command ends."""


class ClusterError(BadRequest):
    """The cluster cannot be used as it is."""


class Unreachable(Exception):
    """A worker's process does not answer now: it is restarted, or its node is gone; `permanent` if for good."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


@dataclass(frozen=True)
class Node:
    """A live node of the cluster."""

    address: str
    cpus: float
    gpus: float


class Handle(Protocol):
    """A worker of the engine: a `WorkerHost` in a process of some node. Methods raise Unreachable."""

    async def start(self, token: str | None) -> str:
        """Start the agent; return the worker's name."""
        ...

    async def state(self) -> str:
        """Return the state; waits while the worker is not placed."""
        ...

    async def stop(self, drain_s: float) -> None:
        """Ask the agent to stop."""
        ...

    def end(self) -> None:
        """End the process for good, unless the cluster cannot be reached. Raises nothing."""
        ...


class ClusterEngine(Protocol):
    """What the crew needs of a cluster."""

    async def nodes(self) -> list[Node]:
        """Return the live nodes. Raises Unreachable."""
        ...

    def create(self, label: str) -> Handle:
        """Have the engine place a worker. Raises Unreachable."""
        ...


class _Member:
    """A worker, and what was last reported of it."""

    def __init__(self, number: int, handle: Handle) -> None:
        self.number = number
        self.handle = handle
        self.reported = ""
        self.name = ""
        self.placed = False
        self.gone_at: float | None = None
        self.asking: asyncio.Task[str] | None = None
        self.asked_at = 0.0

    @property
    def title(self) -> str:
        """Its number and, as soon as it is known, its name."""
        return f"worker {self.number} ({self.name})" if self.name else f"worker {self.number}"


class Crew:
    """The workers that one command keeps running."""

    def __init__(
        self,
        engine: ClusterEngine,
        *,
        workers: int | Literal["auto"],
        token: str | None,
        cpus: int,
        on_gpus: bool,
        say: Callable[[str], None],
        local_url: bool = False,
        poll_s: float = POLL_S,
    ) -> None:
        """Keep `workers` workers, each with `cpus` CPUs and a GPU if `on_gpus`; `auto`: as many as the nodes can run.

        `local_url`: the server's URL is a loopback address, so that workers of other machines cannot reach it.
        """
        self._engine = engine
        self._workers = workers
        self._token = token
        self._cpus = cpus
        self._on_gpus = on_gpus
        self._say = say
        self._local_url = local_url
        self._poll_s = poll_s
        self._members: list[_Member] = []
        self._next_number = 1
        self._label = secrets.token_hex(2)
        self._stopping: float | None = None
        self._changed = asyncio.Event()
        self._warned: str | None = None

    def stop(self, drain_s: float) -> None:
        """Stop all workers; a running item may end within `drain_s` seconds. A later call interrupts it."""
        self._stopping = drain_s if self._stopping is None else 0.0
        self._changed.set()

    async def run(self) -> None:
        """Run until stopped. Raises WorkerRefused, ClusterError; workers are stopped then, too."""
        try:
            nodes = await self._engine.nodes()
        except Unreachable as error:
            raise ClusterError(f"{NO_ANSWER}: {error}. Check that its head runs, and --address") from error
        if (problem := find_problem(nodes, local_url=self._local_url)) is not None:
            raise ClusterError(problem)
        try:
            while self._stopping is None:
                await self._adjust()
                await asyncio.gather(*(self._look(member) for member in self._members))
                await self._pause()
        finally:
            await self._end()

    def _target(self, nodes: Sequence[Node]) -> int:
        if self._workers != "auto":
            return self._workers
        return sum(workers_of(node, self._cpus, on_gpus=self._on_gpus) for node in nodes)

    async def _adjust(self) -> None:
        """Create missing workers; remove those that are gone, and with `auto` those that no node has room for."""
        try:
            nodes = await self._engine.nodes()
        except Unreachable as error:
            self._warn(f"{NO_ANSWER}: {error}")
            return
        target, now = self._target(nodes), time.monotonic()
        self._warn(find_problem(nodes, local_url=self._local_url) or (None if target else self._lacks_resources()))
        self._members = [m for m in self._members if m.gone_at is None or now - m.gone_at < REPLACE_S]
        for member in [member for member in reversed(self._members) if not member.placed]:
            if self._workers == "auto" and len(self._members) > target:
                self._members.remove(member)
                self._report(member, "removed: the cluster has no room for it")
                _forget(member)
        while len(self._members) < target:
            try:
                handle = self._engine.create(f"ray-{self._label}-{self._next_number}")
            except Unreachable as error:
                self._warn(f"{NO_ANSWER}: {error}")
                return
            member = _Member(self._next_number, handle)
            self._next_number += 1
            self._members.append(member)
            self._report(member, f"waits for a {'GPU' if self._on_gpus else 'CPU'}")

    def _lacks_resources(self) -> str:
        if self._on_gpus:
            return "no node has a GPU yet: --cpu runs workers on CPUs, --workers N has an autoscaler add nodes"
        return f"no node has {self._cpus} CPUs yet"

    def _warn(self, problem: str | None) -> None:
        if problem is not None and problem != self._warned:
            self._say(problem)
        self._warned = problem

    async def _look(self, member: _Member) -> None:
        """Ask for the state of a worker, report a new one, and start a worker that is new on its node."""
        if member.gone_at is not None:
            return
        if member.asking is None:
            member.asking, member.asked_at = asyncio.create_task(member.handle.state()), time.monotonic()
        await asyncio.wait({member.asking}, timeout=self._poll_s)
        if not member.asking.done():
            if member.placed and time.monotonic() - member.asked_at > ANSWER_S:
                self._report(member, "does not answer; its node may be gone")
            return
        asking, member.asking = member.asking, None
        try:
            state = asking.result()
            if state == NEW:
                member.name = await member.handle.start(self._token)
                state = "starting"
        except Unreachable as error:
            member.placed = False
            if error.permanent:
                self._replace(member, f"ended: {error}")
            else:
                self._report(member, f"is restarted: {error}")
            return
        member.placed = True
        if state.startswith(FAILED):
            self._replace(member, state)
            return
        if state.startswith(REFUSED):
            raise WorkerRefused(f"{member.title} is {state}")
        self._report(member, state)

    def _replace(self, member: _Member, reason: str) -> None:
        """Give up a worker; after a while another one is created."""
        member.placed, member.gone_at = False, time.monotonic()
        self._report(member, reason)
        _forget(member)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), self._poll_s)

    async def _end(self) -> None:
        """Stop all workers, and end those that do not stop in time."""
        drain_s = self._stopping or 0.0
        if drain_s and any(member.placed for member in self._members):
            self._say(f"stopping; running items have {drain_s:g} s to end (stop again to interrupt them)")
        await asyncio.gather(*(self._end_one(member, drain_s) for member in self._members))

    async def _end_one(self, member: _Member, drain_s: float) -> None:
        with contextlib.suppress(TimeoutError, Unreachable):
            if member.placed:
                await asyncio.wait_for(self._stop_one(member, drain_s), drain_s + STOP_S)
        if member.gone_at is None:
            _forget(member)
            self._report(member, STOPPED)

    async def _stop_one(self, member: _Member, drain_s: float) -> None:
        await member.handle.stop(drain_s)
        while not (state := await member.handle.state()).startswith((STOPPED, REFUSED)):
            self._report(member, state)
            if drain_s and self._stopping == 0:
                drain_s = 0.0
                await member.handle.stop(0)
            await asyncio.sleep(min(self._poll_s, 0.2))

    def _report(self, member: _Member, state: str) -> None:
        if state != member.reported:
            member.reported = state
            self._say(f"{member.title}: {state}")


def _forget(member: _Member) -> None:
    if member.asking is not None:
        member.asking.cancel()
        member.asking = None
    member.handle.end()


def workers_of(node: Node, cpus: int, *, on_gpus: bool) -> int:
    """Return the number of workers that a node has room for."""
    by_cpu = int(node.cpus // cpus)
    return min(int(node.gpus), by_cpu) if on_gpus else by_cpu


def find_problem(nodes: Sequence[Node], *, local_url: bool) -> str | None:
    """Return why workers on some node cannot reach the server or other nodes, None if they can."""
    addresses = sorted({node.address for node in nodes})
    if len(addresses) > 1 and (loopback := [address for address in addresses if is_loopback(address)]):
        return (
            f"a node of the cluster has the address {loopback[0]}, which others cannot reach; start it with the "
            "address of its network: ray start --node-ip-address=…"
        )
    if len(addresses) > 1 and local_url:
        return (
            f"--join has a loopback address, which workers on other nodes ({', '.join(addresses[:5])}) cannot reach; "
            "use the server's address in their network, and set its `host`"
        )
    return None


def is_loopback(address: str) -> bool:
    """Return whether a node's address is of its own machine only."""
    return address.startswith("127.") or address in ("localhost", "::1")
