"""Events between servers on one database."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class PromptReportedEvent(Event):
    """A client got the end of a prompt on its WebSocket."""

    name: ClassVar[str] = "comfyui_prompt_reported"
    audience: ClassVar[Audience] = "internal"

    prompt_id: str
    user_id: str
    client_id: str
