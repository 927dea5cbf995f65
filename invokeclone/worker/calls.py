"""Calls of saved workflows from a running item: the workflow is found, made into sessions, and the item waits for them.

It lives in the node thread; what is queued and what becomes of it is the queue's.
"""

from typing import Any
from uuid import uuid4

from invokeclone.boards import store as boards_store
from invokeclone.graph.calls import WorkflowCallExecution, WorkflowCallFrame, WorkflowCallParentRef
from invokeclone.graph.execution import GraphExecutionState
from invokeclone.graph.graph import Graph
from invokeclone.graph.invocation import BaseInvocation
from invokeclone.graph.taxonomy import ImageCategory
from invokeclone.images import access
from invokeclone.kit.errors import Forbidden, NotFound
from invokeclone.queue import calls as queue_calls
from invokeclone.queue.calls import Called, CallFailed
from invokeclone.utilities.prompts import DynamicPrompts
from invokeclone.worker.tools import Session
from invokeclone.workflows import calls as workflow_calls
from invokeclone.workflows import generators
from invokeclone.workflows import service as workflows
from invokeclone.workflows.schemas import Workflow

ASSETS = (ImageCategory.CONTROL, ImageCategory.MASK, ImageCategory.USER, ImageCategory.OTHER)


class _Sources:
    """What generators of a called workflow read, for the user of the calling item."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def prompts(self, generator: generators.DynamicPrompts) -> list[str]:
        """Expand a pattern in a process of its own. Raises CallFailed."""

        async def expand() -> list[str]:
            expander = DynamicPrompts()
            try:
                made = await expander.expand(
                    generator.input, generator.size(), generator.seed, combinatorial=generator.combinatorial
                )
            finally:
                await expander.close()
            if made.error:
                raise CallFailed(f"A pattern of the called workflow cannot be expanded: {made.error}")
            return made.prompts

        return self._session.tools.wait_unless(self._session.canceled.is_set, expand())

    def images(self, generator: generators.BoardImages) -> list[str]:
        """Return the names of the images on a board that the user may see. Raises CallFailed."""
        user = self._session.user
        board_id = generator.board_id
        if not board_id:
            raise CallFailed("A generator of the called workflow names no board")
        categories = (ImageCategory.GENERAL,) if generator.category == "images" else ASSETS

        async def names() -> list[str]:
            async with self._session.tools.resources.database.read() as connection:
                owner = await access.list_owner(connection, user, board_id)
                return await boards_store.image_names(
                    connection, board_id, categories, is_intermediate=False, owner=owner
                )

        return self._session.tools.wait(names())


def begin(session: Session, node: BaseInvocation) -> None:
    """Queue the workflow that `node` calls, and have the item wait for it: its row then is no longer this worker's.

    Raises CallFailed when nothing comes of it, and CanceledException.
    """
    try:
        workflow, graphs = _prepare(session, node)
    except (workflow_calls.NotCallable, NotFound, Forbidden) as error:
        raise CallFailed(str(error)) from error
    state = session.state
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
    called = [_session_of(graph, state, frame, execution) for graph in graphs]
    execution.child_session_ids = [one.session_id for one in called]
    execution.child_session_id = execution.child_session_ids[0]
    state.waiting_workflow_call = frame
    state.waiting_workflow_call_execution = execution
    text = workflow.model_dump_json(exclude={"id"})
    resources = session.tools.resources
    try:
        session.tools.wait(queue_calls.suspend(resources, session.item, state, called, text))
    except BaseException:
        state.workflow_call_stack.pop()
        state.waiting_workflow_call = state.waiting_workflow_call_execution = None
        raise


def _prepare(session: Session, node: BaseInvocation) -> tuple[Workflow, list[Graph]]:
    """Return the workflow that a node calls and the graphs to run for it."""
    call: dict[str, Any] = node.model_dump(mode="json")
    resources = session.tools.resources
    workflow = session.tools.wait(workflows.read(resources, call["workflow_id"], session.user))
    inputs = call["workflow_inputs"]
    return workflow, workflow_calls.graphs(workflow, inputs, _Sources(session), resources.settings.max_queue_size)


def _push_frame(state: GraphExecutionState, node: BaseInvocation, workflow: Workflow) -> WorkflowCallFrame:
    """Note the call in the session; raises CallFailed when calls are nested too deeply."""
    depth = len(state.workflow_call_stack) + 1
    if depth > state.max_workflow_call_depth:
        raise CallFailed(f"Workflows may call each other {state.max_workflow_call_depth} deep and no deeper")
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
) -> Called:
    """Return a session of a called graph that knows by whom it was called."""
    state = GraphExecutionState.start(graph, str(uuid4()))
    state.workflow_call_stack = list(caller.workflow_call_stack)
    state.max_workflow_call_depth = caller.max_workflow_call_depth
    state.workflow_call_parent = WorkflowCallParentRef(
        workflow_call_id=execution.id, parent_session_id=caller.id, **frame.model_dump()
    )
    return Called(state.id, state.to_json())
