"""The bus hands each event to the listeners of its class."""

from typing import Any

from invokeclone.kit.events import Bus, Event


class Weather(Event):
    degrees: int


class Storm(Weather):
    gusts: int


class Tide(Event):
    level: int


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[type[Event], dict[str, Any]]] = []

    def __call__(self, kind: type[Event], payload: dict[str, Any]) -> None:
        self.events.append((kind, payload))

    @property
    def kinds(self) -> list[type[Event]]:
        return [kind for kind, _ in self.events]


def emit_all(bus: Bus) -> None:
    for event in (Weather(degrees=3), Storm(degrees=4, gusts=90), Tide(level=2)):
        bus.emit(event)


def test_a_listener_without_classes_receives_every_event() -> None:
    bus, recorder = Bus(), Recorder()
    bus.subscribe(recorder)
    emit_all(bus)
    assert recorder.kinds == [Weather, Storm, Tide]


def test_a_listener_receives_its_classes_and_their_subclasses() -> None:
    bus, weather, storms_and_tides = Bus(), Recorder(), Recorder()
    bus.subscribe(weather, Weather)
    bus.subscribe(storms_and_tides, Storm, Tide)
    emit_all(bus)
    assert weather.kinds == [Weather, Storm]
    assert storms_and_tides.kinds == [Storm, Tide]


def test_a_late_listener_receives_later_events_of_a_known_class() -> None:
    bus, first, later = Bus(), Recorder(), Recorder()
    bus.subscribe(first, Tide)
    bus.emit(Tide(level=1))
    bus.subscribe(later, Tide)
    bus.emit(Tide(level=2))
    assert [payload["level"] for _, payload in first.events] == [1, 2]
    assert [payload["level"] for _, payload in later.events] == [2]


def test_listeners_are_called_in_subscription_order() -> None:
    bus, order = Bus(), list[int]()
    for number in range(3):

        def listen(_kind: Any, _payload: Any, number: int = number) -> None:
            order.append(number)

        bus.subscribe(listen, *([Tide] if number == 1 else []))
    bus.publish(Tide, {"level": 3})
    assert order == [0, 1, 2]


def test_an_unsubscribed_listener_receives_no_more_events() -> None:
    bus, leaving, staying = Bus(), Recorder(), Recorder()
    bus.subscribe(leaving)
    bus.subscribe(staying)
    bus.emit(Tide(level=1))
    bus.unsubscribe(leaving)
    bus.emit(Tide(level=2))
    assert [payload["level"] for _, payload in leaving.events] == [1]
    assert [payload["level"] for _, payload in staying.events] == [1, 2]


def test_a_listener_of_own_events_receives_none_of_other_servers() -> None:
    bus, every, own = Bus(), Recorder(), Recorder()
    bus.subscribe(every, Weather)
    bus.subscribe(own, Weather, only_own=True)
    bus.publish(Storm, {"gusts": 1}, is_local=False)
    bus.publish(Storm, {"gusts": 2})
    bus.publish(Storm, {"gusts": 3}, is_local=False)
    assert [payload["gusts"] for _, payload in every.events] == [1, 2, 3]
    assert [payload["gusts"] for _, payload in own.events] == [2]
