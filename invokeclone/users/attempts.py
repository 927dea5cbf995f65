"""How often a password may be tried: a count of failures in memory, by address and e-mail; it knows no request.

Ten failures for one e-mail from one address, fifty from one address, or two hundred for one e-mail (someone who tries from
many addresses) within five minutes, and no more is tried until those are over.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import ClassVar

from invokeclone.kit.errors import TooMany

WINDOW_S = 300
PAIR_LIMIT = 10
ADDRESS_LIMIT = 50
EMAIL_LIMIT = 200
MAX_KEYS = 10_000
"""Keys that are counted at once; the one longest unused is forgotten first."""


class TooManyAttempts(TooMany):
    """Passwords have been tried too often."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": str(WINDOW_S)}

    def __init__(self) -> None:
        super().__init__("Too many failed attempts; try again in a few minutes")


class Attempts:
    """Counts failures. An attempt counts as one from its start, and is taken back when it succeeds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with none."""
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def begin(self, address: str, email: str) -> None:
        """Count an attempt. Raise TooManyAttempts when there were enough."""
        at = self._clock()
        keys = self._keys(address, email)
        for key, limit in keys.items():
            if len(self._recent(key, at)) >= limit:
                raise TooManyAttempts
        for key in keys:
            times = self._failures.setdefault(key, deque())
            times.append(at)
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)

    def record_success(self, address: str, email: str) -> None:
        """Forget the failures of this e-mail from this address, and take the last attempt back from the other counts."""
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
