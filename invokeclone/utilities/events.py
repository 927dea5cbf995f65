"""Events of a language model at work for a user."""

from typing import ClassVar, Literal

from pydantic import Field

from invokeclone.kit.events import Audience, Event


class _LLMTaskEvent(Event):
    audience: ClassVar[Audience] = "owner"

    task_id: str = Field(description="The id that the user gave the task.")
    user_id: str = Field(default="system", description="Whose task it is.")


class LLMTaskProgressEvent(_LLMTaskEvent):
    """A language model is being loaded, or writes."""

    name: ClassVar[str] = "llm_task_progress"

    phase: Literal["loading_model", "generating"] = Field(description="What is going on.")
    message: str = Field(description="The same in words.")
    percentage: float | None = Field(default=None, ge=0, le=1, description="How much is done, 0 to 1, at least.")
    current_tokens: int | None = Field(default=None, description="Tokens so far.")
    total_tokens: int | None = Field(default=None, description="Most tokens that there can be.")


class LLMTaskCompleteEvent(_LLMTaskEvent):
    """A language model is done."""

    name: ClassVar[str] = "llm_task_complete"


class LLMTaskErrorEvent(_LLMTaskEvent):
    """A language model could not do its task."""

    name: ClassVar[str] = "llm_task_error"

    error: str = Field(description="Why.")
