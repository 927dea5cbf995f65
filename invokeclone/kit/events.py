"""Events: base class, audiences, and the emitter that passes them to listeners. Does not depend on particular events.

An event is a frozen model with two class attributes: its name on the socket and its audience. Defining a subclass adds
an event: it is registered in `EVENTS` under its name, published in the OpenAPI document and routed by its audience.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from invokeclone.kit.times import timestamp

Audience = Literal["queue", "owner_and_admin", "owner", "admin", "workflow", "bulk_download", "everyone", "internal"]
"""Receivers of an event: `queue` = owner and admins in full, other users redacted; `workflow` = owner and admins, and
all users while the workflow is public; `internal` = only the server itself."""

EVENTS: dict[str, type["Event"]] = {}
"""Every event class by its name on the socket."""


class Event(BaseModel):
    """Something that happened, emitted after the transaction is committed.

    Subclasses set `name` and `audience`. All fields are sent, including nulls.
    """

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str] = ""
    audience: ClassVar[Audience] = "everyone"

    timestamp: int = Field(default_factory=timestamp)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class under its name."""
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__ and cls.name:
            EVENTS[cls.name] = cls

    def redact(self) -> "Event | None":
        """Return the copy for users who do not own the event; None if they do not receive it."""
        return None

    def shares(self) -> "dict[str, Event]":
        """Return a copy per owner for an event that belongs to several users; empty for one owner or none."""
        return {}


class Emitter(Protocol):
    """Receives events from services. Called on the event loop after the commit; never blocks."""

    def emit(self, event: Event) -> None:
        """Pass `event` on."""
        ...


Listener = Callable[[type[Event], dict[str, Any]], None]


class Bus:
    """The server's emitter: passes the class and the JSON payload of each event to every listener in turn.

    A listener must return at once (start a task for anything longer). Its exceptions are bugs and are not caught here.
    """

    def __init__(self) -> None:
        self._listeners: list[tuple[Listener, tuple[type[Event], ...], bool]] = []
        self._listeners_of: dict[tuple[type[Event], bool], list[Listener]] = {}

    def subscribe(self, listener: Listener, *kinds: type[Event], only_own: bool = False) -> None:
        """Call `listener(event class, payload)` for each later event of `kinds` and their subclasses; without any, for all events.

        With `only_own`, events of other servers on the same database are left out.
        """
        self._listeners.append((listener, kinds or (Event,), only_own))
        self._listeners_of.clear()

    def unsubscribe(self, listener: Listener) -> None:
        """Call `listener` for no later event."""
        self._listeners = [entry for entry in self._listeners if entry[0] != listener]
        self._listeners_of.clear()

    def emit(self, event: Event) -> None:
        """Pass `event` to the listeners of its class."""
        self.publish(type(event), event.model_dump(mode="json"))

    def publish(self, kind: type[Event], payload: dict[str, Any], *, is_local: bool = True) -> None:
        """Pass an event with a finished payload, as received from a worker, to the listeners of its class.

        An event that is not `is_local` comes from another server.
        """
        listeners = self._listeners_of.get((kind, is_local))
        if listeners is None:
            entries = [(listener, only_own) for listener, kinds, only_own in self._listeners if issubclass(kind, kinds)]
            listeners = [listener for listener, only_own in entries if is_local or not only_own]
            self._listeners_of[kind, is_local] = listeners
        for listener in listeners:
            listener(kind, payload)
