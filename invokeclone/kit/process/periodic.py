"""Background tasks that run again and again until they are stopped, and survive every error."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from invokeclone.kit.process.repeated_errors import RepeatedErrors


class PeriodicTask:
    """Runs `work` every `interval_s` seconds, or earlier when it is woken, until it is stopped.

    The interval begins at the end of a run, so that work that ends when a connection is lost is run again after a delay.
    With the interval None, a run starts only when the task is woken.

    An error of a run is logged (`RepeatedErrors`) and does not end the task.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        interval_s: float | None,
        *,
        failure: str,
        logger: logging.Logger,
        expected: tuple[type[Exception], ...] = (),
        at_once: bool = True,
    ) -> None:
        """Create without starting; the first run is at the start, or `at_once=False` after the interval.

        `name` is the action in the log, `failure` what an error means. Errors of `expected` classes are logged as warnings
        without a traceback.
        """
        self._name = name
        self._work = work
        self._interval_s = interval_s
        self._errors = RepeatedErrors(name, failure=failure, logger=logger, expected=expected)
        self._at_once = at_once and interval_s is not None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task; does nothing if it runs already."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Cancel the task and the current run, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def wake(self) -> None:
        """Run now, or at once after the current run."""
        self._woken.set()

    def note_success(self) -> None:
        """Log the next error again: for work that succeeds long before it ends, for example with a connection."""
        self._errors.note_success()

    async def _run(self) -> None:
        if not self._at_once:
            await self._pause()
        while True:
            self._woken.clear()
            try:
                await self._work()
            except Exception as error:  # noqa: BLE001  (logged; the next run tries again)
                self._errors.report(error)
            except asyncio.CancelledError as error:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                self._errors.report(error)  # of something that the run awaits
            else:
                self.note_success()
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval_s):
                await self._woken.wait()
