"""An event is one class: declared, it is routed to its audience and published; nothing else is edited."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import EVENTS, Audience, Bus, Event
from invokeclone.server import sockets
from invokeclone.server.app import create_app


@pytest.fixture
def kind() -> Iterator[type[Event]]:
    class KettleBoiledEvent(Event):
        """The kettle has boiled."""

        name: ClassVar[str] = "kettle_boiled"
        audience: ClassVar[Audience] = "owner"

        user_id: str
        litres: float

    yield KettleBoiledEvent
    del EVENTS["kettle_boiled"]


def test_an_event_needs_only_a_class(kind: type[Event], settings: Settings) -> None:
    bus, received = Bus(), []
    bus.subscribe(lambda kind, payload: received.append((kind.name, payload, sockets.rooms_for(kind, payload))))
    bus.emit(kind(user_id="ann", litres=1.5, timestamp=5))
    assert received == [
        ("kettle_boiled", {"timestamp": 5, "user_id": "ann", "litres": 1.5}, [sockets.user_room("ann")])
    ]
    document = create_app(settings, worker_command=None).openapi()
    assert document["components"]["schemas"]["KettleBoiledEvent"]["required"] == ["user_id", "litres"]
