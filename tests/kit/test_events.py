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


def test_a_listener_without_classes_is_given_every_event() -> None:
    bus, recorder = Bus(), Recorder()
    bus.subscribe(recorder)
    emit_all(bus)
    assert recorder.kinds == [Weather, Storm, Tide]


def test_a_listener_is_given_the_classes_that_it_subscribes_to_and_their_subclasses() -> None:
    bus, weather, storms_and_tides = Bus(), Recorder(), Recorder()
    bus.subscribe(weather, Weather)
    bus.subscribe(storms_and_tides, Storm, Tide)
    emit_all(bus)
    assert weather.kinds == [Weather, Storm]
    assert storms_and_tides.kinds == [Storm, Tide]


def test_a_listener_that_comes_later_is_given_later_events_of_a_class_that_was_sent_before() -> None:
    bus, first, later = Bus(), Recorder(), Recorder()
    bus.subscribe(first, Tide)
    bus.emit(Tide(level=1))
    bus.subscribe(later, Tide)
    bus.emit(Tide(level=2))
    assert [payload["level"] for _, payload in first.events] == [1, 2]
    assert [payload["level"] for _, payload in later.events] == [2]


def test_listeners_are_called_in_the_order_in_which_they_subscribed() -> None:
    bus, order = Bus(), []
    for number in range(3):
        bus.subscribe(lambda _kind, _payload, number=number: order.append(number), *([Tide] if number == 1 else []))
    bus.publish(Tide, {"level": 3})
    assert order == [0, 1, 2]


def test_a_listener_that_unsubscribes_is_given_nothing_more() -> None:
    bus, leaving, staying = Bus(), Recorder(), Recorder()
    bus.subscribe(leaving)
    bus.subscribe(staying)
    bus.emit(Tide(level=1))
    bus.unsubscribe(leaving)
    bus.emit(Tide(level=2))
    assert [payload["level"] for _, payload in leaving.events] == [1]
    assert [payload["level"] for _, payload in staying.events] == [1, 2]
