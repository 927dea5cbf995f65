"""Start of a workflow call: load the workflow, create its sessions, and suspend the calling item.

Runs in the node thread of the worker.
"""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.graph.session.call_frames import WorkflowCallExecution, WorkflowCallFrame, WorkflowCallParentRef
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.session.graph import Graph
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.kit.errors import Forbidden, NotFound
from invokeclone.queue.calls import sessions
from invokeclone.queue.calls.chain import CalledSession, CallFailed
from invokeclone.utilities.prompts import PromptExpander
from invokeclone.workflows import generators
from invokeclone.workflows.schemas import Workflow

Result = TypeVar("Result")
ASSETS = (ImageCategory.CONTROL, ImageCategory.MASK, ImageCategory.USER, ImageCategory.OTHER)


class Wait(Protocol):
    """Waits in the node thread for a coroutine on the event loop."""

    def __call__(self, work: Coroutine[Any, Any, Result], /) -> Result:
        """Return the result of `work`. Raises CanceledException."""
        ...


class Calls(Protocol):
    """What a call reads and writes on the server, with the rights of the calling item's user."""

    async def workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow that the user may read. Raises WorkflowNotFound, NotYourWorkflow."""
        ...

    async def generator_images(self, board_id: str, categories: Sequence[ImageCategory]) -> list[str]:
        """Return the names of the images of these categories on a board, without intermediates."""
        ...

    async def suspend(self, state: GraphExecutionState, called: Sequence[CalledSession], workflow: str) -> None:
        """Set the item to waiting for the call in `state`, and enqueue the called sessions (see `chain.suspend`)."""
        ...


@dataclass(frozen=True)
class CallingItem:
    """The session that calls a workflow, its access to the server, and functions to wait for the event loop."""

    calls: Calls
    state: GraphExecutionState
    max_sessions: int
    """The largest number of sessions that one call may enqueue."""
    wait: Wait
    wait_unless_canceled: Wait
    """For long work, which is canceled with the item."""


class _Sources:
    """Data sources of the called workflow's generators, for the user of the calling item."""

    def __init__(self, caller: CallingItem) -> None:
        self._caller = caller

    def prompts(self, generator: generators.DynamicPrompts) -> list[str]:
        """Expand a dynamic prompt in a separate process. Raises CallFailed."""

        async def expand() -> list[str]:
            expander = PromptExpander()
            try:
                expansion = await expander.expand(
                    generator.input, generator.size(), generator.seed, combinatorial=generator.combinatorial
                )
            finally:
                await expander.close()
            if expansion.error:
                raise CallFailed(f"A dynamic prompt of the called workflow cannot be expanded: {expansion.error}")
            return expansion.prompts

        return self._caller.wait_unless_canceled(expand())

    def images(self, generator: generators.BoardImages) -> list[str]:
        """Return the names of the images on a board that the user may see. Raises CallFailed if there is no board."""
        if not generator.board_id:
            raise CallFailed("An image generator of the called workflow has no board selected")
        categories = (ImageCategory.GENERAL,) if generator.category == "images" else ASSETS
        return self._caller.wait(self._caller.calls.generator_images(generator.board_id, categories))


def begin(caller: CallingItem, node: BaseInvocation) -> None:
    """Enqueue the sessions of the workflow that `node` calls, and suspend the item: the worker no longer owns its row.

    Raises CallFailed if the workflow cannot be called, and CanceledException.
    """
    try:
        workflow, graphs = _prepare(caller, node)
    except (sessions.NotCallable, NotFound, Forbidden) as error:
        raise CallFailed(str(error)) from error
    state = caller.state
    frame = _push_frame(state, node, workflow)
    execution = WorkflowCallExecution(
        parent_session_id=state.id,
        prepared_call_node_id=frame.prepared_call_node_id,
        source_call_node_id=frame.source_call_node_id,
        workflow_id=frame.workflow_id,
        depth=frame.depth,
        status="waiting_for_child",
        expected_child_count=len(graphs),
    )
    called_sessions = [_session_of(graph, state, frame, execution) for graph in graphs]
    execution.child_session_ids = [called_session.session_id for called_session in called_sessions]
    execution.child_session_id = execution.child_session_ids[0]
    state.waiting_workflow_call = frame
    state.waiting_workflow_call_execution = execution
    text = workflow.model_dump_json(exclude={"id"})
    try:
        caller.wait(caller.calls.suspend(state, called_sessions, text))
    except BaseException:
        state.workflow_call_stack.pop()
        state.waiting_workflow_call = state.waiting_workflow_call_execution = None
        raise


def _prepare(caller: CallingItem, node: BaseInvocation) -> tuple[Workflow, list[Graph]]:
    """Return the workflow that a node calls, and the graphs to run."""
    call: dict[str, Any] = node.model_dump(mode="json")
    workflow = caller.wait(caller.calls.workflow(call["workflow_id"]))
    return workflow, sessions.graphs(workflow, call["workflow_inputs"], _Sources(caller), caller.max_sessions)


def _push_frame(state: GraphExecutionState, node: BaseInvocation, workflow: Workflow) -> WorkflowCallFrame:
    """Add the call to the session's stack. Raises CallFailed if calls are nested too deeply."""
    depth = len(state.workflow_call_stack) + 1
    if depth > state.max_workflow_call_depth:
        raise CallFailed(f"Workflow calls may be nested at most {state.max_workflow_call_depth} levels deep")
    frame = WorkflowCallFrame(
        prepared_call_node_id=node.id,
        source_call_node_id=state.prepared_source_mapping[node.id],
        workflow_id=workflow.id,
        depth=depth,
    )
    state.workflow_call_stack.append(frame)
    return frame


def _session_of(
    graph: Graph, caller: GraphExecutionState, frame: WorkflowCallFrame, execution: WorkflowCallExecution
) -> CalledSession:
    """Return a session of a called graph, with a reference to the calling session."""
    state = GraphExecutionState.start(graph, str(uuid4()))
    state.workflow_call_stack = list(caller.workflow_call_stack)
    state.max_workflow_call_depth = caller.max_workflow_call_depth
    state.workflow_call_parent = WorkflowCallParentRef(
        workflow_call_id=execution.id, parent_session_id=caller.id, **frame.model_dump()
    )
    return CalledSession(state.id, state.to_json())
