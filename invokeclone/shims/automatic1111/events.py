"""Events between servers on one database, so that each of them knows the generations that clients wait for."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class GenerationStartedEvent(Event):
    """A client waits for a batch of A1111's API."""

    name: ClassVar[str] = "a1111_generation_started"
    audience: ClassVar[Audience] = "internal"

    batch_id: str
    item_ids: list[int]
    user_id: str
    steps: int
    task_id: str | None
    stamp: str


class GenerationStoppedEvent(Event):
    """A client interrupts a batch of A1111's API, or skips one of its images."""

    name: ClassVar[str] = "a1111_generation_stopped"
    audience: ClassVar[Audience] = "internal"

    batch_id: str
    user_id: str
    interrupted: bool
    skipped: bool
