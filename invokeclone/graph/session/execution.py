"""A session: a graph and how far it has run. It says which node is next and with what inputs; it runs none itself.

The source graph is never run: its nodes are copied into an execution graph, several times where an iterate node stands
above them. Public fields are what clients and the database see; the rest (`_Progress`) is derived from them when needed.
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
"""Ids without repeats, in iteration order."""


class NodeInputError(ValueError):
    """What an edge brought does not fit the input it leads to."""

    def __init__(self, node: BaseInvocation, error: ValidationError) -> None:
        self.node = node
        first = error.errors(include_url=False, include_input=False)[0]
        self.path = ".".join(str(part) for part in first["loc"])
        super().__init__(f"Node {node.id} has invalid incoming input for {self.path}: {first['msg']}")


def _new_id() -> str:
    return str(uuid4())


class GraphExecutionState(BaseModel):
    """A session."""

    model_config = ConfigDict(json_schema_extra={"required": list(_REQUIRED)})

    id: str = Field(default_factory=_new_id, description="The session's id")
    graph: Graph = Field(description="The graph as it was given")
    execution_graph: Graph = Field(default_factory=Graph, description="Copies of its nodes, with the inputs they got")
    executed: set[str] = Field(default_factory=set, description="Ids of what has run: copies and source nodes")
    executed_history: list[str] = Field(default_factory=list, description="Source nodes in the order they were done")
    results: dict[str, AnyInvocationOutput] = Field(default_factory=dict, description="Outputs by copy")
    errors: dict[str, str] = Field(default_factory=dict, description="Errors by copy")
    workflow_call_stack: list[WorkflowCallFrame] = Field(default_factory=list, description="Calls being made")
    workflow_call_history: list[WorkflowCallExecution] = Field(default_factory=list, description="Calls made")
    workflow_call_parent: WorkflowCallParentRef | None = Field(default=None, description="The call it serves")
    waiting_workflow_call: WorkflowCallFrame | None = Field(default=None, description="The call it waits for")
    waiting_workflow_call_execution: WorkflowCallExecution | None = Field(default=None, description="How far that is")
    waiting_workflow_call_child_session: "GraphExecutionState | None" = Field(default=None, description="Its session")
    max_workflow_call_depth: int = Field(default=4, ge=1, description="How deep calls may be nested")
    prepared_source_mapping: dict[str, str] = Field(default_factory=dict, description="Copy → source node")
    source_prepared_mapping: dict[str, _Copies] = Field(default_factory=dict, description="Source node → its copies")
    prepared_iteration_paths: dict[str, list[int]] = Field(default_factory=dict, description="Copy → its indices")
    ready_order: list[str] = Field(default_factory=list, description="Node classes to run first")
    indegree: dict[str, int] = Field(default_factory=dict, description="Copy → how many parents it still waits for")

    _progress: SessionProgress | None = PrivateAttr(default=None)

    @field_validator("graph")
    @classmethod
    def _check_graph(cls, graph: Graph) -> Graph:
        graph.validate_self()
        return graph

    @classmethod
    def start(cls, graph: Graph, session_id: str | None = None) -> "GraphExecutionState":
        """Return a new session of a graph that has been validated already."""
        return cls.model_construct(id=session_id or _new_id(), graph=graph)

    def next(self) -> BaseInvocation | None:
        """Return the next node to run, with its inputs, or None when there is none.

        Raises NodeInputError, whose `node` is the one that cannot run.
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
        """Keep what a copy put out and let what waited for it go on."""
        progress = self._get_progress()
        self.results[node_id] = output
        progress.finish(node_id)

    def set_node_error(self, node_id: str, error: str) -> None:
        """Keep a copy's error; the session is over."""
        self.errors[node_id] = error

    def is_complete(self) -> bool:
        """Whether there is an error or every node has run."""
        return bool(self.errors) or self.graph.nodes.keys() <= self.executed

    def has_error(self) -> bool:
        """Whether a node failed."""
        return bool(self.errors)

    def to_json(self) -> str:
        """Return the session as it is stored: nulls left out."""
        return self.model_dump_json(exclude_none=True)

    def rest_json(self) -> str:
        """Return what follows the graph in the session's JSON: all that a run changes."""
        return f",{self.model_dump_json(exclude_none=True, exclude={'id', 'graph'})[1:]}"

    def _get_progress(self) -> SessionProgress:
        if self._progress is None:
            self._progress = SessionProgress(self)
        return self._progress

    def _set_inputs(self, node: BaseInvocation, progress: SessionProgress) -> None:
        """Put onto a copy what its parents put out; a later edge onto the same input wins."""
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
            if field.startswith(DYNAMIC_INPUT):  # of a called workflow; the calling node has no field of that name
                inputs = {**getattr(node, "workflow_inputs", {}), field: copy_value(value)}
                field, value = "workflow_inputs", inputs
            try:
                setattr(node, field, copy_value(value))
            except ValidationError as error:
                raise NodeInputError(node, error) from error

    def _collector_items(self, node: BaseInvocation, progress: SessionProgress) -> list[Any]:
        """Return what a collector gets: collections first, then single items, each by iteration path, then in edge order."""
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
