"""Rate limit of password attempts: an in-memory count of failures by address and e-mail.

After ten failures for one e-mail from one address, fifty from one address, or two hundred for one e-mail (attempts from
many addresses) within five minutes, further attempts are refused until those failures expire. Several servers on one
database count together, by events.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, ClassVar

from invokeclone.kit.errors import TooMany
from invokeclone.kit.events import Bus, Event
from invokeclone.users.events import SignInAttemptEvent

WINDOW_S = 300
PAIR_LIMIT = 10
ADDRESS_LIMIT = 50
EMAIL_LIMIT = 200
MAX_KEYS = 10_000
"""Number of keys counted at once; the least recently used one is evicted."""


class TooManyAttempts(TooMany):
    """There were too many failed password attempts."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": str(WINDOW_S)}

    def __init__(self) -> None:
        super().__init__("Too many failed attempts; try again in a few minutes")


class Attempts:
    """Counts failures. An attempt counts as a failure from its start, and is removed when it succeeds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create without failures."""
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._bus: Bus | None = None

    def connect(self, bus: Bus) -> None:
        """Count the attempts on all servers whose events `bus` has."""
        self._bus = bus
        bus.subscribe(self._on_event, SignInAttemptEvent)

    def _on_event(self, _kind: type[Event], payload: dict[str, Any]) -> None:
        change = self._remove if payload["succeeded"] else self._add
        change(payload["address"], payload["email"])

    def begin(self, address: str, email: str) -> None:
        """Count an attempt. Raise TooManyAttempts when the limit is reached."""
        at = self._clock()
        for key, limit in self._keys(address, email).items():
            if len(self._recent(key, at)) >= limit:
                raise TooManyAttempts
        if self._bus is None:
            self._add(address, email)
        else:
            self._bus.emit(SignInAttemptEvent(address=address, email=email))

    def _add(self, address: str, email: str) -> None:
        at = self._clock()
        for key in self._keys(address, email):
            times = self._failures.setdefault(key, deque())
            times.append(at)
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)

    def record_success(self, address: str, email: str) -> None:
        """Clear the failures of this e-mail from this address, and remove this attempt from the other counts."""
        if self._bus is None:
            self._remove(address, email)
        else:
            self._bus.emit(SignInAttemptEvent(address=address, email=email, succeeded=True))

    def _remove(self, address: str, email: str) -> None:
        pair, *other_keys = self._keys(address, email)
        self._failures.pop(pair, None)
        for key in other_keys:
            if times := self._failures.get(key):
                times.pop()

    @staticmethod
    def _keys(address: str, email: str) -> dict[tuple[str, str], int]:
        return {(address, email): PAIR_LIMIT, (address, ""): ADDRESS_LIMIT, ("", email): EMAIL_LIMIT}

    def _recent(self, key: tuple[str, str], at: float) -> deque[float]:
        times = self._failures.get(key, deque())
        while times and times[0] < at - WINDOW_S:
            times.popleft()
        return times
