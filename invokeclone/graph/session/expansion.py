"""Expansion of a session: which source nodes can be copied, how often, and which copies may run.

`SessionProgress` changes the session (`SessionFields`) and holds only state derived from it, so that a session loaded
from the database continues where it stopped.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Protocol
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput
from invokeclone.graph.session.control import COLLECT, IF, ITERATE
from invokeclone.graph.session.copies import Indices, Row, agree, join, path_of
from invokeclone.graph.session.edges import Edge, EdgeConnection
from invokeclone.graph.session.graph import Graph
from invokeclone.graph.session.plan import BRANCHES, Gate, GraphPlan
from invokeclone.graph.session.ready import ReadyQueues
from invokeclone.graph.session.values import copy_value

_BOOLEAN = TypeAdapter(bool)


class SessionFields(Protocol):
    """The fields of a session that are read and written."""

    graph: Graph
    execution_graph: Graph
    executed: set[str]
    executed_history: list[str]
    results: dict[str, BaseInvocationOutput]
    prepared_source_mapping: dict[str, str]
    source_prepared_mapping: dict[str, list[str]]
    prepared_iteration_paths: dict[str, list[int]]
    ready_order: list[str]
    indegree: dict[str, int]


class SessionProgress:
    """State derived from a session, to find the next copy to run."""

    def __init__(self, session: SessionFields) -> None:
        self._session = session
        self._plan = GraphPlan(session.graph)
        self._ready = ReadyQueues(session.ready_order)
        self._waiting_copies: list[str] = []
        self._needed: dict[tuple[Gate, tuple[tuple[str, int], ...]], bool] = {}
        """Whether nodes behind a gate are needed, by gate and indices of the copies."""
        self._copies: dict[str, list[str]] = {}
        self._remaining: dict[str, int] = {}
        self._indices: dict[str, Indices] = {}
        self._children: defaultdict[str, list[str]] = defaultdict(list)
        self.inward: defaultdict[str, list[Edge]] = defaultdict(list)
        """Edges into each copy, in order of the graph's edges."""
        self._stale = True
        self._restore()

    def path(self, copy_id: str) -> tuple[int, ...]:
        """Return the iteration indices of a copy, outermost iteration first."""
        return tuple(self._session.prepared_iteration_paths.get(copy_id, ()))

    def next(self) -> str | None:
        """Return the id of the next copy to run, or None; copies source nodes when no copy is ready."""
        while not self._ready:
            if not self._stale:
                return None
            self._copy_ready_nodes()
        return self._ready.pop()

    def finish(self, copy_id: str) -> None:
        """Mark a copy as executed and update its children; skipped children are finished in turn, at any depth."""
        finishing = [self._finish_one(copy_id)]
        while finishing:
            skipped = next(finishing[-1], None)
            if skipped is None:
                finishing.pop()
            else:
                finishing.append(self._finish_one(skipped))

    def _finish_one(self, copy_id: str) -> Iterator[str]:
        """Mark a copy as executed (or skipped) and yield each copy that must be skipped as a consequence."""
        session = self._session
        source_id = session.prepared_source_mapping[copy_id]
        session.executed.add(copy_id)
        self._remaining[source_id] -= 1
        if self._remaining[source_id] == 0:
            self._finish_source(source_id)
        for child_id in self._children[copy_id]:
            session.indegree[child_id] -= 1
            if session.indegree[child_id] == 0 and self._is_skipped(child_id):
                yield child_id
        if source_id in self._plan.condition_sources:
            waiting, self._waiting_copies = self._waiting_copies, []
            for waiting_id in waiting:
                if self._is_skipped(waiting_id):
                    yield waiting_id

    def _finish_source(self, source_id: str) -> None:
        self._session.executed.add(source_id)
        self._session.executed_history.append(source_id)
        self._stale = True

    # Which copies may run

    def _is_skipped(self, copy_id: str) -> bool:
        """Return whether a copy with executed parents is skipped; otherwise queue it, or let it wait for conditions."""
        source_id = self._session.prepared_source_mapping[copy_id]
        needed = self._is_needed(source_id, self._indices[copy_id])
        if needed is False:
            return True
        if needed is None:
            self._waiting_copies.append(copy_id)
            return False
        node = self._session.execution_graph.nodes[copy_id]
        self._ready.push(type(node).__name__, self.path(copy_id), copy_id)
        return False

    def _is_needed(self, source_id: str, indices: Indices) -> bool | None:
        """Return whether every `if` that gates the node selects its branch; None if not known yet."""
        needed: bool | None = True
        if source_id not in self._plan.gates:
            return needed
        path = tuple(sorted(indices.items()))
        passed: list[tuple[Gate, tuple[tuple[str, int], ...]]] = []
        for gate in self._plan.gates_of(source_id):
            cached = self._needed.get((gate, path))
            passed.append((gate, path))
            is_taken = self._is_branch_taken(gate.if_id, gate.branch, indices) if cached is None else cached
            if is_taken is not True:
                needed = is_taken
            if is_taken is False or cached is not None:
                break
        if needed is not None:
            self._needed.update(dict.fromkeys(passed, needed))
        return needed

    def _settle(self, copy_id: str) -> None:
        if self._is_skipped(copy_id):
            self.finish(copy_id)

    def _settle_waiting(self) -> None:
        waiting, self._waiting_copies = self._waiting_copies, []
        for copy_id in waiting:
            self._settle(copy_id)

    def _is_branch_taken(self, if_id: str, branch: bool, indices: Indices) -> bool | None:
        """Return whether an `if` selects a branch for these indices; None if not known yet."""
        edge = self._plan.conditions[if_id]
        if edge is None:
            return self._plan.literal_condition(if_id) is branch
        condition_copies = self._copies.get(edge.source.node_id)
        if condition_copies is None:
            return None
        condition_copies = [copy_id for copy_id in condition_copies if agree(indices, self._indices[copy_id])]
        if not self._session.executed.issuperset(condition_copies):
            return None
        return any(self._condition(edge, copy_id) is branch for copy_id in condition_copies)

    def _condition(self, edge: Edge, copy_id: str) -> bool | None:
        """Return the condition that a copy computed; None if it was skipped."""
        output = self._session.results.get(copy_id)
        if output is None:
            return None
        value = getattr(output, edge.source.field)
        try:
            return _BOOLEAN.validate_python(value)
        except ValidationError:
            return bool(value)  # the `if` node reports the error when it runs

    # Copying source nodes

    def _copy_ready_nodes(self) -> None:
        """Copy every source node that can be copied now, in topological order."""
        self._stale = False
        for source_id in self._plan.order:
            if source_id in self._copies or not self._can_be_copied(source_id):
                continue
            rows = self._rows(source_id)
            self._copies[source_id] = []
            self._session.source_prepared_mapping[source_id] = []
            self._remaining[source_id] = len(rows)
            copy_ids = [self._copy(source_id, row) for row in rows]
            if not copy_ids:
                self._finish_source(source_id)
            for copy_id in copy_ids:
                if self._session.indegree[copy_id] == 0:
                    self._settle(copy_id)
            if source_id in self._plan.condition_sources:
                self._settle_waiting()
            self._ready.choose()

    def _can_be_copied(self, source_id: str) -> bool:
        executed = self._session.executed
        if not all(iterator in executed for iterator in self._plan.awaited[source_id]):
            return False
        if self._plan.types[source_id] == ITERATE:
            edge = self._plan.collection_edge(source_id)
            if edge is not None and edge.source.node_id not in executed:
                return False
        if self._plan.types[source_id] == IF:
            return self._if_can_be_copied(source_id)
        return all(parent in self._copies for parent in self._plan.layout.parents(source_id))

    def _if_can_be_copied(self, if_id: str) -> bool:
        edge = self._plan.conditions[if_id]
        if edge is not None and edge.source.node_id not in self._session.executed:
            return False
        return all(
            parent in self._copies
            for value, _ in self._conditions_of(if_id)
            for parent in self._parents_when(if_id, value)
        )

    def _copies_of(self, source_id: str) -> list[tuple[str, Indices]]:
        return [(copy_id, self._indices[copy_id]) for copy_id in self._copies[source_id]]

    def _rows(self, source_id: str) -> list[Row]:
        """Return the copies to make of a source node, sorted by iteration path."""
        kind = self._plan.types[source_id]
        if kind == COLLECT:
            rows = self._rows_of_collect(source_id)
        elif kind == IF:
            rows = self._rows_of_if(source_id)
        else:
            rows = [Row({}, {})]
            for parent in self._plan.layout.parents(source_id):
                rows = join(rows, parent, self._copies_of(parent))
        if kind == ITERATE:
            rows = [iteration for row in rows for iteration in self._iterations(source_id, row)]
        return sorted(rows, key=lambda row: path_of(row.indices, self._plan.iterators[source_id]))

    def _iterations(self, source_id: str, row: Row) -> list[Row]:
        """Return a row for each item of an iterate node's collection."""
        edge = self._plan.collection_edge(source_id)
        if edge is None:
            total = len(getattr(self._session.graph.nodes[source_id], "collection", []))
        else:
            output = self._session.results.get(row.parents[edge.source.node_id][0])
            total = 0 if output is None else len(getattr(output, edge.source.field))
        return [Row({**row.indices, source_id: index}, row.parents) for index in range(total)]

    def _rows_of_collect(self, source_id: str) -> list[Row]:
        """Return a row for each outer iteration, with all copies of the sources that belong to it (possibly none)."""
        groups = [Row({}, {})]
        for iterator in self._plan.iterators[source_id]:
            groups = join(groups, iterator, self._copies_of(iterator))
        rows = []
        for group in groups:
            indices = {iterator: group.indices[iterator] for iterator in self._plan.iterators[source_id]}
            rows.append(Row(indices, {}))
        for parent in self._plan.layout.parents(source_id):
            self._distribute_copies(parent, rows)
        return rows

    def _distribute_copies(self, parent: str, rows: list[Row]) -> None:
        """Add to each row of a collector the copies of a source that belong to it."""
        for row in rows:
            row.parents[parent] = []
        keys = [iterator for iterator in self._plan.iterators[parent] if rows and iterator in rows[0].indices]
        by_key: defaultdict[tuple[int, ...], list[Row]] = defaultdict(list)
        for row in rows:
            by_key[tuple(row.indices[key] for key in keys)].append(row)
        for copy_id, indices in self._copies_of(parent):
            has_keys = all(key in indices for key in keys)
            for row in by_key[tuple(indices[key] for key in keys)] if has_keys else rows:
                if has_keys or agree(row.indices, indices):
                    row.parents[parent].append(copy_id)

    def _conditions_of(self, if_id: str) -> list[tuple[bool | None, list[tuple[str, Indices]]]]:
        """Return the conditions of an `if`, each with the copies that computed it."""
        edge = self._plan.conditions[if_id]
        if edge is None:
            return [(self._plan.literal_condition(if_id), [])]
        copies_by_condition: dict[bool | None, list[tuple[str, Indices]]] = {}
        for copy_id, indices in self._copies_of(edge.source.node_id):
            copies_by_condition.setdefault(self._condition(edge, copy_id), []).append((copy_id, indices))
        return list(copies_by_condition.items())

    def _parents_when(self, if_id: str, value: bool | None) -> list[str]:
        """Return the parents of an `if`, except those of its condition and of the branch not selected."""
        taken_fields = {} if value is None else {BRANCHES[value]}
        untaken_fields = (set(BRANCHES.values()) | {"condition"}) - set(taken_fields)
        edges = self._plan.layout.inward[if_id]
        return list(
            dict.fromkeys(edge.source.node_id for edge in edges if edge.destination.field not in untaken_fields)
        )

    def _rows_of_if(self, if_id: str) -> list[Row]:
        edge = self._plan.conditions[if_id]
        all_rows: list[Row] = []
        for value, condition_copies in self._conditions_of(if_id):
            rows = [Row({}, {})]
            if edge is not None:
                rows = join(rows, edge.source.node_id, condition_copies)
            for parent in self._parents_when(if_id, value):
                if edge is None or parent != edge.source.node_id:
                    rows = join(rows, parent, self._copies_of(parent))
            all_rows += rows
        return all_rows

    def _copy(self, source_id: str, row: Row) -> str:
        """Add one copy of a source node and its edges to the execution graph."""
        session = self._session
        copy_id = str(uuid4())
        session.execution_graph.nodes[copy_id] = self._copy_node(source_id, copy_id, row)
        session.prepared_source_mapping[copy_id] = source_id
        session.source_prepared_mapping[source_id].append(copy_id)
        session.prepared_iteration_paths[copy_id] = list(path_of(row.indices, self._plan.iterators[source_id]))
        self._copies[source_id].append(copy_id)
        self._indices[copy_id] = row.indices
        for edge in self._edges_of(source_id, copy_id, row):
            session.execution_graph.edges.append(edge)
            self.inward[copy_id].append(edge)
        parents = dict.fromkeys(edge.source.node_id for edge in self.inward[copy_id])
        for parent in parents:
            self._children[parent].append(copy_id)
        session.indegree[copy_id] = sum(parent not in session.executed for parent in parents)
        return copy_id

    def _copy_node(self, source_id: str, copy_id: str, row: Row) -> BaseInvocation:
        source = self._session.graph.nodes[source_id]
        node: BaseInvocation = source.model_copy()
        fields: dict[str, Any] = node.__dict__
        for name, value in fields.items():
            fields[name] = copy_value(value)
        fields["id"] = copy_id
        kind = self._plan.types[source_id]
        if kind in (ITERATE, COLLECT):
            fields["use_cache"] = False
        if kind == ITERATE:
            fields["index"] = row.indices[source_id]
        return node

    def _edges_of(self, source_id: str, copy_id: str, row: Row) -> list[Edge]:
        """Return the edges into a copy, in order of the source graph; edges into a branch not selected are omitted."""
        untaken_fields = None
        if self._plan.types[source_id] == IF:
            untaken_fields = self._untaken_fields(source_id, row)
        edges = []
        for edge in self._plan.layout.inward[source_id]:
            if untaken_fields and edge.destination.field in untaken_fields:
                continue
            destination = EdgeConnection.model_construct(node_id=copy_id, field=edge.destination.field)
            for parent_copy in row.parents[edge.source.node_id]:
                source = EdgeConnection.model_construct(node_id=parent_copy, field=edge.source.field)
                edges.append(Edge.model_construct(source=source, destination=destination))
        return edges

    def _untaken_fields(self, if_id: str, row: Row) -> set[str]:
        edge = self._plan.conditions[if_id]
        if edge is None:
            value: bool | None = self._plan.literal_condition(if_id)
        else:
            value = self._condition(edge, row.parents[edge.source.node_id][0])
        if value is None:
            return set(BRANCHES.values())
        return {BRANCHES[not value]}

    # Resuming a stored session

    def _restore(self) -> None:
        """Derive the state from the session."""
        session = self._session
        for edge in session.execution_graph.edges:
            self.inward[edge.destination.node_id].append(edge)
        for source_id in session.source_prepared_mapping:
            self._copies[source_id] = []
        for copy_id, source_id in session.prepared_source_mapping.items():
            self._copies[source_id].append(copy_id)
            parents = dict.fromkeys(edge.source.node_id for edge in self.inward[copy_id])
            for parent in parents:
                self._children[parent].append(copy_id)
            self._indices[copy_id] = self._restore_indices(copy_id, source_id, list(parents))
            session.indegree[copy_id] = sum(parent not in session.executed for parent in parents)
        for source_id, copies in self._copies.items():
            copies.sort(key=self.path)
            self._remaining[source_id] = sum(copy_id not in session.executed for copy_id in copies)
        for copy_id in list(session.prepared_source_mapping):
            if copy_id not in session.executed and session.indegree[copy_id] == 0:
                self._settle(copy_id)

    def _restore_indices(self, copy_id: str, source_id: str, parents: list[str]) -> Indices:
        path, iterators = self.path(copy_id), self._plan.iterators[source_id]
        if len(path) == len(iterators):
            return dict(zip(iterators, path, strict=True))
        parent_indices: Indices = {}
        for parent in parents:
            parent_indices |= self._indices[parent]
        if self._plan.types[source_id] == ITERATE:
            parent_indices[source_id] = path[-1]
        return {iterator: parent_indices[iterator] for iterator in iterators if iterator in parent_indices}
