"""Password attempts, which servers on one database count together."""

import pytest

from invokeclone.kit.events import Bus
from invokeclone.users.attempts import PAIR_LIMIT, Attempts, TooManyAttempts
from tests.server.peers.conftest import connect


def test_attempts_on_two_servers_are_counted_together() -> None:
    buses = [Bus(), Bus()]
    connect(*buses)
    first, second = Attempts(), Attempts()
    first.connect(buses[0])
    second.connect(buses[1])
    for number in range(PAIR_LIMIT):
        (first, second)[number % 2].begin("10.0.0.1", "ann@example.com")
    for attempts in (first, second):
        with pytest.raises(TooManyAttempts):
            attempts.begin("10.0.0.1", "ann@example.com")
        attempts.begin("10.0.0.2", "ann@example.com")
    second.record_success("10.0.0.1", "ann@example.com")
    for attempts in (first, second):
        attempts.begin("10.0.0.1", "ann@example.com")
