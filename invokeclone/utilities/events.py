"""Progress events of language model tasks."""

from typing import ClassVar, Literal

from pydantic import Field

from invokeclone.kit.events import Audience, Event


class _LLMTaskEvent(Event):
    audience: ClassVar[Audience] = "owner"

    task_id: str = Field(description="The id of the task, chosen by the user.")
    user_id: str = Field(default="system", description="The owner of the task.")


class LLMTaskProgressEvent(_LLMTaskEvent):
    """A language model is loading or generating."""

    name: ClassVar[str] = "llm_task_progress"

    phase: Literal["loading_model", "generating"] = Field(description="Phase of the task.")
    message: str = Field(description="Description of the phase.")
    percentage: float | None = Field(default=None, ge=0, le=1, description="Lower bound of the progress, 0 to 1.")
    current_tokens: int | None = Field(default=None, description="Number of tokens generated.")
    total_tokens: int | None = Field(default=None, description="Maximum number of tokens.")


class LLMTaskCompleteEvent(_LLMTaskEvent):
    """A language model task is complete."""

    name: ClassVar[str] = "llm_task_complete"


class LLMTaskErrorEvent(_LLMTaskEvent):
    """A language model task failed."""

    name: ClassVar[str] = "llm_task_error"

    error: str = Field(description="The error message.")
