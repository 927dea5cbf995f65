"""Runs a session: node by node, with events, through the invocation cache.

The order of events is part of the contract: started, events of the node itself, complete. An item's change to `failed`
precedes the node's error event, so that event is returned to the loop (`Outcome.announce`).
"""

import cProfile
import functools
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from invokeclone.graph.checkpoints import watch_cancellation
from invokeclone.graph.context import CanceledException, InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput
from invokeclone.graph.session.execution import GraphExecutionState, NodeInputError
from invokeclone.graph.session.rules import CALL_SAVED_WORKFLOW
from invokeclone.graph.sizes import check_size
from invokeclone.kit import log
from invokeclone.kit.files.storage import make_folder
from invokeclone.queue.calls.begin import CallingItem, begin
from invokeclone.queue.calls.chain import CallFailed
from invokeclone.queue.claims import ItemError
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.cache import key_of
from invokeclone.worker.engine import IMPORT_FREE
from invokeclone.worker.events import ItemEvents, NodeEvents
from invokeclone.worker.interfaces.tools import Session, Tools
from invokeclone.worker.loop import Outcome, describe
from invokeclone.worker.outputs import OutputOverLimit, check_output
from invokeclone.worker.stats import vram_in_use

_log = log.get("worker.runner")

Report = Callable[[Session, str], None]
"""Called with a session and its final status."""
MakeContext = Callable[[Session, BaseInvocation, str, NodeEvents], InvocationContext]


class SessionRunner:
    """Runs sessions with a worker's tools, in the node thread."""

    def __init__(
        self,
        tools: Tools,
        make_context: MakeContext,
        stopping: Callable[[int], None] = lambda _item_id: None,
        report: Report = lambda _session, _status: None,
    ) -> None:
        """Call `stopping` at the first checkpoint of a canceled item, and `report` after each run."""
        self._tools = tools
        self._make_context = make_context
        self._stopping = stopping
        self._report = report
        self._waiting: dict[int, str] = {}
        """JSON of the sessions that wait for called workflows, by item id."""

    def run(self, item: ClaimedItem, canceled: threading.Event) -> Outcome:
        """Run `item` to its end, first error or cancellation; raises only on internal errors."""
        with log.fields(action="run_item", device=self._tools.device, **item.log_fields):
            return self._run(item, canceled)

    def _run(self, item: ClaimedItem, canceled: threading.Event) -> Outcome:
        if not item.session:
            message = "the stored session of this item is damaged; enqueue it again"
            return Outcome("failed", None, ItemError("DamagedSession", message, message))
        try:
            state = GraphExecutionState.model_validate_json(item.session)
        except ValidationError as error:
            if self._tools.remote is None or not (missing := _missing_nodes(error)):
                raise
            return Outcome("failed", None, self._describe_missing(missing))
        self._waiting.pop(item.item_id, None)
        self._tools.engine.new_stats()
        run = _Run(Session(self._tools, item, state, canceled), self._make_context, self._stopping)
        try:
            with self._profiler(item):
                outcome = run.to_end()
        finally:
            self._tools.engine.unwatch_modules()
            run.session.close()
        self._report(run.session, outcome.status)
        if outcome.status == "waiting":
            self._waiting[item.item_id] = run.session.state.to_json()
        self._tidy(run.session, outcome.status)
        return outcome

    def _describe_missing(self, types: list[str]) -> ItemError:
        """Return the error of an item whose nodes only the server knows."""
        folder = self._tools.resources.settings.custom_nodes_path
        text = f"the worker that ran this item has no node {', '.join(types)}: install the node pack in {folder} on its machine"
        _log.error("%s", text)
        return ItemError("NotOnThisWorker", text, text)

    def interrupt(self) -> None:
        """Check for cancellation at each module of a network."""
        self._tools.engine.watch_modules()

    def _tidy(self, session: Session, status: str) -> None:
        """Remove tensors that no cached output or waiting session mentions, and log the session's statistics."""
        if self._waiting:
            active = self._tools.wait(self._tools.backend.list_active(list(self._waiting)))
            self._waiting = {item_id: text for item_id, text in self._waiting.items() if item_id in active}
        waiting, cache = list(self._waiting.values()), self._tools.cache
        self._tools.tensors.keep_only(lambda name: cache.mentions(name) or any(name in text for text in waiting))
        if _log.isEnabledFor(20):
            figures = {"status": status, "seconds": round(session.stats.elapsed, 3)}
            _log.info("%s", session.stats.block(session.state.id, self._tools.engine.stats()), extra=figures)

    def _profiler(self, item: ClaimedItem) -> Any:
        settings = self._tools.resources.settings
        if not settings.profile_graphs:
            return nullcontext()
        prefix = f"{settings.profile_prefix}_" if settings.profile_prefix else ""
        return _Profile(settings.profiles_path / f"{prefix}{item.session_id}.prof")


class _Run:
    """A single run of a session."""

    def __init__(self, session: Session, make_context: MakeContext, stopping: Callable[[int], None]) -> None:
        self.session = session
        self._stopping = stopping
        self._reported = False
        self._state = session.state
        self._tools = session.tools
        self._max_nodes = session.tools.resources.settings.limits.session_nodes
        self._make_context = make_context
        self._events = ItemEvents(session.tools.channel, session.item, session.tools.device)

    def to_end(self) -> Outcome:
        """Run until the session is complete, a node fails or the item is canceled."""
        try:
            with watch_cancellation(self.session.canceled, self._report_stopping):
                return self._nodes()
        except CanceledException:
            return Outcome("canceled", self._session_json())
        except Exception as error:  # noqa: BLE001  (an internal error, not a node's; the session is still stored)
            _log.exception("internal error in the session of item %s", self.session.item.item_id)
            return Outcome("failed", self._session_json(), describe(error), broken=True)

    def _nodes(self) -> Outcome:
        while not self.session.canceled.is_set() and self.session.owner_may_run():
            try:
                node = self._state.next()
            except NodeInputError as error:
                return self._fail(error.node, self._events_of(error.node), error)
            if node is None:
                return self._complete()
            if len(self._state.execution_graph.nodes) > self._max_nodes:
                message = f"iterations create more than {self._max_nodes} nodes (setting limits.session_nodes)"
                return self._fail(node, self._events_of(node), OutputOverLimit(message))
            if failed := self._run_node(node):
                return failed
        return Outcome("canceled", self._session_json())

    def _caller(self) -> CallingItem:
        session, tools = self.session, self.session.tools
        return CallingItem(
            session.backend,
            self._state,
            tools.resources.settings.max_queue_size,
            tools.wait,
            functools.partial(tools.wait_unless, session.canceled.is_set),
        )

    def _complete(self) -> Outcome:
        if not self._state.is_complete():
            _log.warning("session %s has no runnable node left but is not complete", self._state.id)
        return Outcome("completed", self._session_json())

    def _run_node(self, node: BaseInvocation) -> Outcome | None:
        """Run a node with its events; return None on success."""
        source_id = self._state.prepared_source_mapping[node.id]
        node_json = node.model_dump_json().encode()
        events = self._events.node(source_id, node_json)
        events.start()
        began, vram = time.perf_counter(), vram_in_use()
        try:
            with log.fields(action="run_node"):
                if node.get_type() == CALL_SAVED_WORKFLOW:
                    begin(self._caller(), node)
                    return Outcome("waiting", None)
                output, output_json = self._output_of(node, node_json, source_id, events)
        except CallFailed as error:
            return self._fail(node, events, error, ItemError("ValueError", str(error), str(error)))
        except CanceledException:
            raise  # becomes the outcome in `to_end`; a canceled node emits no error event
        except (Exception, SystemExit) as error:
            if self.session.canceled.is_set():  # a library may have wrapped our CanceledException
                raise CanceledException(str(error)) from error
            return self._fail(node, events, error)
        self._state.complete(node.id, output)
        self.session.stats.add(node.get_type(), time.perf_counter() - began, vram_in_use() - vram)
        events.complete(output_json)
        return None

    def _output_of(
        self, node: BaseInvocation, node_json: bytes, source_id: str, events: NodeEvents
    ) -> tuple[BaseInvocationOutput, bytes]:
        """Return the node's output, from the cache or by running the node, and its JSON."""
        node.check_required()
        check_size(node, self._tools.resources.settings.limits)
        cache = self._tools.cache
        key = key_of(node.id, node_json, self.session.item.user_id) if node.use_cache and cache.enabled else None
        if key and (cached_output := cache.get(key)) is not None:
            self.session.stats.reuse(node.get_type())
            return cached_output, cached_output.model_dump_json().encode()
        if type(node).__module__ not in IMPORT_FREE:
            self._tools.engine.wait_until_imported()
        output = self._invoke(node, source_id, events)
        output_json = output.model_dump_json().encode()
        check_output(output, output_json, self._tools.resources.settings.limits)
        if key:
            cache.save(key, output, output_json)
        return output, output_json

    def _invoke(self, node: BaseInvocation, source_id: str, events: NodeEvents) -> BaseInvocationOutput:
        """Return the output of a node; one that runs out of the device's memory is invoked once more with all of it."""
        try:
            return node.invoke(self._make_context(self.session, node, source_id, events))
        except Exception as error:
            if not self._tools.engine.free_device(error):
                raise
            _log.warning(
                "node %s (%s) ran out of memory, it is invoked again: %s", node.id, node.get_type(), str(error)
            )
        return node.invoke(self._make_context(self.session, node, source_id, events))

    def _report_stopping(self) -> None:
        """Report the first checkpoint of a canceled item; later ones are not reported."""
        if not self._reported:
            self._reported = True
            self._stopping(self.session.item.item_id)

    def _events_of(self, node: BaseInvocation) -> NodeEvents:
        return self._events.node(self._state.prepared_source_mapping[node.id], node.model_dump_json().encode())

    def _fail(
        self, node: BaseInvocation, events: NodeEvents, error: BaseException, item_error: ItemError | None = None
    ) -> Outcome:
        failure = item_error or describe(error)
        _log.error(
            "node %s (%s) failed: %s\n%s",
            node.id,
            node.get_type(),
            failure.error_message,
            failure.error_traceback,
            extra={"action": "run_node"},
        )
        self._state.set_node_error(node.id, f"{failure.error_type}: {failure.error_message}")

        def announce() -> None:
            events.error(*failure)

        return Outcome("failed", self._session_json(), failure, announce)

    def _session_json(self) -> str:
        return self._state.rest_json()


def _missing_nodes(error: ValidationError) -> list[str]:
    """Return the types of nodes that no class here has."""
    problems = error.errors(include_url=False, include_input=False)
    return sorted({str(problem["ctx"]["tag"]) for problem in problems if problem["type"] == "union_tag_invalid"})


class _Profile:
    """Profiles with cProfile and writes the statistics to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._profile = cProfile.Profile()

    def __enter__(self) -> None:
        self._profile.enable()

    def __exit__(self, *_details: object) -> None:
        self._profile.disable()
        self._profile.create_stats()
        make_folder(self._path.parent)
        self._profile.dump_stats(self._path)
