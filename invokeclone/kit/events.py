"""Events: what one is, who may hear it, and how it leaves a process; it refuses to know any particular event.

An event is a frozen model with two class facts: the name that sockets use, and the audience. Defining a subclass is all it
takes to add one: it is kept in `EVENTS` under its name, published in the OpenAPI document and routed by its audience.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from invokeclone.kit.times import timestamp

Audience = Literal["queue", "owner_and_admin", "owner", "admin", "workflow", "bulk_download", "everyone", "internal"]
"""Who hears an event: `queue` = owner and admins in full and everybody else in the queue's room redacted; `workflow` = owner
and admins, and everybody while it is public; `internal` = nobody outside the server."""

EVENTS: dict[str, type["Event"]] = {}
"""Every event class by its name on the socket."""


class Event(BaseModel):
    """Something that happened, told after the transaction that made it so.

    Subclasses set `name` and `audience`. Fields are all sent, nulls included.
    """

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str] = ""
    audience: ClassVar[Audience] = "everyone"

    timestamp: int = Field(default_factory=timestamp)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the class under its name."""
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__ and cls.name:
            EVENTS[cls.name] = cls

    def redact(self) -> "Event | None":
        """Return the copy that users may read whom the event does not belong to; None: they hear nothing."""
        return None

    def shares(self) -> "dict[str, Event]":
        """Return each owner's own copy, of an event that belongs to several users; empty when it has one owner or none."""
        return {}


class Emitter(Protocol):
    """Takes events out of a service. Called on the event loop after the commit; never blocks."""

    def emit(self, event: Event) -> None:
        """Send `event` on its way."""
        ...


Listener = Callable[[type[Event], dict[str, Any]], None]


class Bus:
    """The server's emitter: hands each event, as its class and its plain payload, to the listeners of its class in turn.

    A listener must return at once (start a task for anything longer). What it raises is its own bug and is not caught here.
    """

    def __init__(self) -> None:
        self._listeners: list[tuple[Listener, tuple[type[Event], ...]]] = []
        self._listeners_of: dict[type[Event], list[Listener]] = {}

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> None:
        """Call `listener(event class, payload)` for each later event of `kinds` and their subclasses; without any, for all events."""
        self._listeners.append((listener, kinds or (Event,)))
        self._listeners_of.clear()

    def unsubscribe(self, listener: Listener) -> None:
        """Call `listener` for no later event."""
        self._listeners = [entry for entry in self._listeners if entry[0] != listener]
        self._listeners_of.clear()

    def emit(self, event: Event) -> None:
        """Tell the listeners of `event`."""
        self.publish(type(event), event.model_dump(mode="json"))

    def publish(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Tell the listeners of an event whose payload is ready, as it comes from a worker."""
        listeners = self._listeners_of.get(kind)
        if listeners is None:
            listeners = [listener for listener, kinds in self._listeners if issubclass(kind, kinds)]
            self._listeners_of[kind] = listeners
        for listener in listeners:
            listener(kind, payload)
