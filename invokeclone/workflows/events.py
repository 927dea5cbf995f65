"""Events of the workflow library."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class _WorkflowEvent(Event):
    audience: ClassVar[Audience] = "workflow"

    workflow_id: str
    user_id: str


class WorkflowCreatedEvent(_WorkflowEvent):
    """A workflow has been created."""

    name: ClassVar[str] = "workflow_created"

    is_public: bool


class WorkflowUpdatedEvent(_WorkflowEvent):
    """A workflow or its sharing has been changed."""

    name: ClassVar[str] = "workflow_updated"

    old_is_public: bool
    new_is_public: bool


class WorkflowDeletedEvent(_WorkflowEvent):
    """A workflow has been deleted."""

    name: ClassVar[str] = "workflow_deleted"

    is_public: bool


class WorkflowAccessRevokedEvent(_WorkflowEvent):
    """A workflow is no longer shared: clients of other users must discard it."""

    name: ClassVar[str] = "workflow_access_revoked"
    audience: ClassVar[Audience] = "everyone"
