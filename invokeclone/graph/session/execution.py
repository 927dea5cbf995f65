"""Sessions: the execution state of a graph, which determines the next node and its inputs.

The nodes of the source graph are copied into an execution graph, several times if they are downstream of an iterate
node. Public fields are what clients and the database see; a `SessionProgress` is derived from them when needed.
"""

from typing import Annotated, Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput
from invokeclone.graph.invocations.unions import AnyInvocationOutput
from invokeclone.graph.session.call_frames import WorkflowCallExecution, WorkflowCallFrame, WorkflowCallParentRef
from invokeclone.graph.session.control import CollectInvocation, IterateInvocation
from invokeclone.graph.session.expansion import SessionProgress
from invokeclone.graph.session.graph import Graph
from invokeclone.graph.session.rules import DYNAMIC_INPUT
from invokeclone.graph.session.values import copy_value

_REQUIRED = [
    "id",
    "graph",
    "execution_graph",
    "executed",
    "executed_history",
    "results",
    "errors",
    "workflow_call_stack",
    "workflow_call_history",
    "prepared_source_mapping",
    "source_prepared_mapping",
]

_Copies = Annotated[list[str], Field(json_schema_extra={"uniqueItems": True})]
"""Unique ids, in iteration order."""


class NodeInputError(ValueError):
    """The value of an edge is not valid for its input."""

    def __init__(self, node: BaseInvocation, error: ValidationError) -> None:
        self.node = node
        first = error.errors(include_url=False, include_input=False)[0]
        self.path = ".".join(str(part) for part in first["loc"])
        super().__init__(f"Node {node.id} has invalid incoming input for {self.path}: {first['msg']}")


def _new_id() -> str:
    return str(uuid4())


class GraphExecutionState(BaseModel):
    """The execution state of a graph."""

    model_config = ConfigDict(json_schema_extra={"required": list(_REQUIRED)})

    id: str = Field(default_factory=_new_id, description="Id of the session")
    graph: Graph = Field(description="The source graph")
    execution_graph: Graph = Field(default_factory=Graph, description="Prepared copies of the nodes, with their inputs")
    executed: set[str] = Field(default_factory=set, description="Ids of executed copies and source nodes")
    executed_history: list[str] = Field(default_factory=list, description="Source nodes in order of completion")
    results: dict[str, AnyInvocationOutput] = Field(default_factory=dict, description="Outputs by copy")
    errors: dict[str, str] = Field(default_factory=dict, description="Errors by copy")
    workflow_call_stack: list[WorkflowCallFrame] = Field(default_factory=list, description="Workflow calls in progress")
    workflow_call_history: list[WorkflowCallExecution] = Field(default_factory=list, description="Ended workflow calls")
    workflow_call_parent: WorkflowCallParentRef | None = Field(
        default=None, description="The call that started the session"
    )
    waiting_workflow_call: WorkflowCallFrame | None = Field(default=None, description="The call the session waits for")
    waiting_workflow_call_execution: WorkflowCallExecution | None = Field(
        default=None, description="Status of that call"
    )
    waiting_workflow_call_child_session: "GraphExecutionState | None" = Field(
        default=None, description="Session of that call"
    )
    max_workflow_call_depth: int = Field(default=4, ge=1, description="Maximum nesting depth of workflow calls")
    prepared_source_mapping: dict[str, str] = Field(default_factory=dict, description="Copy → source node")
    source_prepared_mapping: dict[str, _Copies] = Field(default_factory=dict, description="Source node → its copies")
    prepared_iteration_paths: dict[str, list[int]] = Field(
        default_factory=dict, description="Copy → its iteration indices"
    )
    ready_order: list[str] = Field(default_factory=list, description="Names of node classes to run first, in order")
    indegree: dict[str, int] = Field(
        default_factory=dict, description="Copy → number of parents that have not been executed"
    )

    _progress: SessionProgress | None = PrivateAttr(default=None)

    @field_validator("graph")
    @classmethod
    def _check_graph(cls, graph: Graph) -> Graph:
        graph.validate_self()
        return graph

    @classmethod
    def start(cls, graph: Graph, session_id: str | None = None) -> "GraphExecutionState":
        """Return a new session of an already validated graph."""
        return cls.model_construct(id=session_id or _new_id(), graph=graph)

    def next(self) -> BaseInvocation | None:
        """Return the next node to run, with its inputs, or None if there is none.

        Raises NodeInputError if a value is not valid for its input.
        """
        if self.errors:
            return None
        progress = self._get_progress()
        copy_id = progress.next()
        if copy_id is None:
            return None
        node = self.execution_graph.nodes[copy_id]
        self._set_inputs(node, progress)
        return node

    def complete(self, node_id: str, output: BaseInvocationOutput) -> None:
        """Record the output of a copy and update the copies that depend on it."""
        progress = self._get_progress()
        self.results[node_id] = output
        progress.finish(node_id)

    def set_node_error(self, node_id: str, error: str) -> None:
        """Record the error of a copy, which ends the session."""
        self.errors[node_id] = error

    def is_complete(self) -> bool:
        """Return whether there is an error or every node has been executed."""
        return bool(self.errors) or self.graph.nodes.keys() <= self.executed

    def has_error(self) -> bool:
        """Return whether a node failed."""
        return bool(self.errors)

    def to_json(self) -> str:
        """Return the session as JSON without nulls."""
        return self.model_dump_json(exclude_none=True)

    def rest_json(self) -> str:
        """Return the part of the session's JSON that follows the graph, which is all that a run changes."""
        return f",{self.model_dump_json(exclude_none=True, exclude={'id', 'graph'})[1:]}"

    def _get_progress(self) -> SessionProgress:
        if self._progress is None:
            self._progress = SessionProgress(self)
        return self._progress

    def _set_inputs(self, node: BaseInvocation, progress: SessionProgress) -> None:
        """Set the inputs of a copy from the outputs of its parents; the last edge into an input wins."""
        if isinstance(node, CollectInvocation):
            node.receive(self._collector_items(node, progress))
            return
        for edge in progress.inward[node.id]:
            output = self.results.get(edge.source.node_id)
            if output is None:
                continue
            value = getattr(output, edge.source.field)
            field = edge.destination.field
            if field == "collection" and isinstance(node, IterateInvocation):
                node.receive(value)
                continue
            if field.startswith(DYNAMIC_INPUT):  # an input of the called workflow; the calling node has no such field
                inputs = {**getattr(node, "workflow_inputs", {}), field: copy_value(value)}
                field, value = "workflow_inputs", inputs
            try:
                setattr(node, field, copy_value(value))
            except ValidationError as error:
                raise NodeInputError(node, error) from error

    def _collector_items(self, node: BaseInvocation, progress: SessionProgress) -> list[Any]:
        """Return the items of a collector: collections, then single items, each by iteration path, then edge order."""
        edges = sorted(progress.inward[node.id], key=lambda edge: progress.path(edge.source.node_id))
        collections: list[Any] = []
        items: list[Any] = []
        for edge in edges:
            output = self.results.get(edge.source.node_id)
            if output is None:
                continue
            value = copy_value(getattr(output, edge.source.field))
            if edge.destination.field == "item":
                items.append(value)
            elif isinstance(value, list):
                collections.extend(value)
            else:
                collections.append(value)
        return collections + items
