"""Nodes that call a saved workflow and return its values.

The worker makes the call and runs it as separate queue items.
"""

from typing import Any

from pydantic import BaseModel, Field

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import Input, InputField, OutputField, UIType
from invokeclone.graph.vocabulary.taxonomy import Classification
from invokeclone.nodes.data.batch import NotExecutableNodeError


class WorkflowReturnValueField(BaseModel):
    """A named return value of a workflow."""

    key: str = Field(description="Name of the value")
    value: Any = Field(default=None, description="The value")


@invocation_output("workflow_return_value_output")
class WorkflowReturnValueOutput(BaseInvocationOutput):
    """A named return value."""

    value: WorkflowReturnValueField = OutputField(
        description="The named value",
        title="Return Value",
        ui_type=UIType._CollectionItem,  # noqa: SLF001
    )


@invocation_output("workflow_return_output")
class WorkflowReturnOutput(BaseInvocationOutput):
    """All return values of a workflow."""

    values: dict[str, Any] = OutputField(default={}, description="The values by name", ui_type=UIType.Any)


@invocation_output("workflow_return_get_output")
class WorkflowReturnGetOutput(BaseInvocationOutput):
    """One return value of a workflow."""

    value: Any = OutputField(description="The value", ui_type=UIType.Any)


def return_key(key: str) -> str:
    """Return the name of a return value, stripped. Raises ValueError if it is empty."""
    key = key.strip()
    if not key:
        message = "Workflow return keys must not be empty"
        raise ValueError(message)
    return key


@invocation(
    "workflow_return_value",
    title="Workflow Return Value",
    tags=["workflow", "return", "output"],
    category="workflow",
    version="1.0.0",
    use_cache=False,
    classification=Classification.Beta,
)
class WorkflowReturnValueInvocation(BaseInvocation):
    """Name a return value of the workflow."""

    key: str = InputField(default="", description="Name of the value")
    value: Any | None = InputField(default=None, description="The value", ui_type=UIType.Any)

    def invoke(self, context: InvocationContext) -> WorkflowReturnValueOutput:
        """Return the named value."""
        return WorkflowReturnValueOutput(value=WorkflowReturnValueField(key=return_key(self.key), value=self.value))


@invocation(
    "workflow_return",
    title="Workflow Return",
    tags=["workflow", "return", "output"],
    category="workflow",
    version="1.0.0",
    use_cache=False,
    classification=Classification.Beta,
)
class WorkflowReturnInvocation(BaseInvocation):
    """Return values to the graph that called this workflow."""

    values: WorkflowReturnValueField | list[WorkflowReturnValueField] = InputField(
        default=[], description="The named values", input=Input.Connection
    )

    def invoke(self, context: InvocationContext) -> WorkflowReturnOutput:
        """Return the values by name. Raises ValueError for a duplicate name."""
        entries = self.values if isinstance(self.values, list) else [self.values]
        values: dict[str, Any] = {}
        for entry in entries:
            key = return_key(entry.key)
            if key in values:
                message = f"Workflow return key {key!r} is used twice"
                raise ValueError(message)
            values[key] = entry.value
        return WorkflowReturnOutput(values=values)


@invocation(
    "workflow_return_get",
    title="Get Workflow Return Value",
    tags=["workflow", "return", "input"],
    category="workflow",
    version="1.0.0",
    use_cache=False,
    classification=Classification.Beta,
)
class WorkflowReturnGetInvocation(BaseInvocation):
    """Get one return value of a workflow."""

    values: dict[str, Any] = InputField(
        default={}, description="The values by name", input=Input.Connection, ui_type=UIType.Any
    )
    key: str = InputField(default="", description="Name of the value")

    def invoke(self, context: InvocationContext) -> WorkflowReturnGetOutput:
        """Return the value. Raises ValueError if there is none with this name."""
        key = return_key(self.key)
        if key not in self.values:
            message = f"Workflow return values have no key {key!r}"
            raise ValueError(message)
        return WorkflowReturnGetOutput(value=self.values[key])


@invocation(
    "call_saved_workflow",
    title="Call Saved Workflow",
    tags=["workflow", "saved", "library"],
    category="workflow",
    version="1.0.0",
    use_cache=False,
    classification=Classification.Beta,
)
class CallSavedWorkflowInvocation(BaseInvocation):
    """Run a workflow of the library and get its return values."""

    workflow_id: str = InputField(default="", description="The workflow to call", ui_type=UIType.SavedWorkflow)
    workflow_inputs: dict[str, Any] = InputField(
        default={}, description="Values of the workflow's inputs", ui_hidden=True
    )

    def invoke(self, context: InvocationContext) -> WorkflowReturnOutput:
        """Refuse to run, because the worker makes the call instead of running the node."""
        message = "A saved workflow can only be called from a queue item"
        raise NotExecutableNodeError(message)
