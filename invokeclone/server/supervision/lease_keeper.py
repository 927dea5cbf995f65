"""The periodic task that renews the leases of this server's live workers and interrupts items whose lease is over."""

import time

from sqlalchemy.exc import SQLAlchemyError

from invokeclone.kit import log
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.queue import leases
from invokeclone.queue.store import LEASE_S
from invokeclone.server.supervision.supervisor import Supervisor

_log = log.get("server.leases")


class LeaseKeeper:
    """Renews and ends leases. The server renews for its workers, because a node may block a worker's own threads."""

    def __init__(self, resources: Resources, supervisor: Supervisor, *, interval_s: float = LEASE_S / 3) -> None:
        """Create without starting the task, which runs every `interval_s` seconds."""
        self._resources = resources
        self._supervisor = supervisor
        self._interval_s = interval_s
        self._task = PeriodicTask(
            "renew_leases",
            self.run_once,
            interval_s,
            failure="cannot renew or end leases",
            logger=_log,
            expected=(SQLAlchemyError, OSError),
        )
        self._last_round_at: float | None = None

    async def start(self) -> None:
        """Start with an immediate run, for items whose server has died."""
        self._task.start()

    async def stop(self) -> None:
        """Stop the task."""
        await self._task.stop()

    async def run_once(self) -> None:
        """Renew first: after this machine was suspended, the leases of its own live workers are over, too.

        After an interruption of the database the leases of all servers are over: each gets the time of a round to renew its
        own before any of them is ended.
        """
        previous, started = self._last_round_at, time.monotonic()
        await leases.renew(self._resources, self._supervisor.live_worker_ids)
        self._last_round_at = started
        is_late = previous is None or started - previous > 2 * self._interval_s
        if is_late and self._resources.database.is_shared:
            return
        if await leases.rescue(self._resources):
            self._supervisor.hints.wake()
