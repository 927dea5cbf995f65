"""What is told of the library: workflows made, changed, gone, or no longer shared."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class _WorkflowEvent(Event):
    audience: ClassVar[Audience] = "workflow"

    workflow_id: str
    user_id: str


class WorkflowCreatedEvent(_WorkflowEvent):
    """A workflow was added to the library."""

    name: ClassVar[str] = "workflow_created"

    is_public: bool


class WorkflowUpdatedEvent(_WorkflowEvent):
    """A workflow was changed, or who reads it."""

    name: ClassVar[str] = "workflow_updated"

    old_is_public: bool
    new_is_public: bool


class WorkflowDeletedEvent(_WorkflowEvent):
    """A workflow was taken out of the library."""

    name: ClassVar[str] = "workflow_deleted"

    is_public: bool


class WorkflowAccessRevokedEvent(_WorkflowEvent):
    """A workflow is shared no more: others than its owner have to forget it."""

    name: ClassVar[str] = "workflow_access_revoked"
    audience: ClassVar[Audience] = "everyone"
