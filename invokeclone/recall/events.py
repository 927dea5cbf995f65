"""The event of recalled parameters."""

from typing import Any, ClassVar

from pydantic import Field

from invokeclone.kit.events import Audience, Event


class RecallParametersUpdatedEvent(Event):
    """The user's web UI should set parameters."""

    name: ClassVar[str] = "recall_parameters_updated"
    audience: ClassVar[Audience] = "owner"

    queue_id: str = Field(description="The queue's id.")
    user_id: str = Field(description="The user whose web UI is updated.")
    parameters: dict[str, Any] = Field(description="The parameters, with models as keys and images with their sizes.")
