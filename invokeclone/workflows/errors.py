"""What can be wrong with a request about workflows; the statuses are those clients know."""

from invokeclone.kit.errors import Forbidden, NotFound, Unprocessable


class WorkflowNotFound(NotFound):
    """No workflow has this id."""

    def __init__(self, workflow_id: str) -> None:
        """Say which."""
        super().__init__(f"no workflow has the id {workflow_id!r}")


class NotYourWorkflow(Forbidden):
    """The workflow belongs to somebody else."""

    def __init__(self, workflow_id: str) -> None:
        """Say which."""
        super().__init__(f"the workflow {workflow_id!r} belongs to somebody else")


class DefaultWorkflow(Forbidden):
    """The workflow came with the application and stays as it is."""

    def __init__(self, workflow_id: str) -> None:
        """Say which."""
        super().__init__(f"the workflow {workflow_id!r} comes with the application and cannot be changed; save a copy")


class WorkflowInvalid(Unprocessable):
    """What was sent does not make a workflow of a user's."""


class PageInvalid(Unprocessable):
    """There is no page of that number or size."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("page and per_page are whole numbers from 0")
