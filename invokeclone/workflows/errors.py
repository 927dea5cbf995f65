"""Errors of the workflow library, with InvokeAI's status codes."""

from invokeclone.kit.errors import Forbidden, NotFound, Unprocessable


class WorkflowNotFound(NotFound):
    """No workflow has this id."""

    def __init__(self, workflow_id: str) -> None:
        """Set the message."""
        super().__init__(f"no workflow has the id {workflow_id!r}")


class NotYourWorkflow(Forbidden):
    """The workflow belongs to another user."""

    def __init__(self, workflow_id: str) -> None:
        """Set the message."""
        super().__init__(f"the workflow {workflow_id!r} belongs to another user")


class DefaultWorkflow(Forbidden):
    """The workflow is a default workflow, which cannot be changed."""

    def __init__(self, workflow_id: str) -> None:
        """Set the message."""
        super().__init__(f"the workflow {workflow_id!r} is a default workflow and cannot be changed; save a copy")


class WorkflowInvalid(Unprocessable):
    """The workflow cannot be saved."""


class PageInvalid(Unprocessable):
    """The page number or size is invalid."""

    def __init__(self) -> None:
        """Set the message."""
        super().__init__("page and per_page must be integers of at least 0")
