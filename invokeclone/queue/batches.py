"""Batches: one graph, the values to substitute into it, and their expansion into queue items.

Values of the wrong type are rejected here, because an item that cannot be loaded would block the queue. Expansion does
not build the graph again: its JSON is written once, split where values are substituted, and each item joins the pieces
with its own values.
"""

import itertools
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    StrictStr,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from invokeclone.graph.session.edges import in_slices
from invokeclone.graph.session.graph import Graph, NodeNotFoundError
from invokeclone.graph.sizes import SizeOverLimit, check_size
from invokeclone.graph.vocabulary.fields import ImageField, VideoField
from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.errors import TooLarge, Unprocessable
from invokeclone.queue.sessions import INITIAL_STATE, MARK, fill, new_session
from invokeclone.workflows.schemas import WorkflowWithoutID

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Scalar = StrictStr | FiniteFloat | int | ImageField | VideoField
BatchValue = Scalar | list[Scalar]


class BatchZippedLengthError(ValueError):
    """Zipped lists differ in length."""


class BatchItemsTypeError(ValueError):
    """The items of a datum are of different types."""


class BatchDuplicateNodeFieldError(ValueError):
    """Two data have the same field of the same node."""


class BatchValueError(ValueError):
    """A value is not valid for its field."""


class NodeFieldValue(BaseModel):
    """A value substituted into a field of a node."""

    node_path: str = Field(description="Id of the node in the graph.")
    field_name: str = Field(description="Name of the node's field.")
    value: BatchValue = Field(description="The value.")


class BatchDatum(BaseModel):
    """The values of one field of a node in the items of a batch."""

    node_path: str = Field(description="Id of the node in the graph.")
    field_name: str = Field(description="Name of the node's field.")
    items: Annotated[list[BatchValue], WrapValidator(in_slices)] = Field(
        default_factory=list, description="The values, in order."
    )


THREAD_THRESHOLD = 200
"""Number of nodes, edges or values up to which the work stays on the event loop: a thread would cost more."""


class Sizes(NamedTuple):
    """Numbers of a batch's parts."""

    nodes: int
    edges: int
    fields: int
    values: int

    @property
    def are_large(self) -> bool:
        """Whether the work should be done in a thread."""
        return max(self) > THREAD_THRESHOLD

    def check(self, limits: Limits) -> None:
        """Raise Unprocessable for the first number over its limit."""
        maxima = (limits.graph_nodes, limits.graph_edges, limits.batch_fields, limits.batch_values)
        settings = ("graph_nodes", "graph_edges", "batch_fields", "batch_values")
        for what, number, limit, setting in zip(self._fields, self, maxima, settings, strict=True):
            if number > limit:
                raise Unprocessable(f"the batch has {number} {what}, more than {limit} (setting limits.{setting})")


class Batch(BaseModel):
    """A graph and the values to substitute into it for each item.

    The data of an inner list are zipped. The inner lists are combined as a Cartesian product, in which the last one
    varies fastest. The whole is repeated `runs` times.
    """

    batch_id: str = Field(default_factory=lambda: str(uuid.uuid4()), description="Id of the batch.")
    origin: str | None = Field(default=None, description="Origin of the batch; chosen by the client.")
    destination: str | None = Field(default=None, description="Destination of the results; chosen by the client.")
    data: list[list[BatchDatum]] | None = Field(default=None, description="The values to substitute into the graph.")
    graph: Graph = Field(description="The graph of each item.")
    workflow: WorkflowWithoutID | None = Field(default=None, description="The workflow that the graph was made from.")
    runs: int = Field(default=1, ge=1, description="Number of repetitions.")

    _template: str | None = PrivateAttr(default=None)
    _workflow_json: str | None = PrivateAttr(default=None)
    _session_bytes: int = PrivateAttr(default=0)

    @field_validator("graph")
    @classmethod
    def _graph_is_sound(cls, graph: Graph) -> Graph:
        graph.validate_self()
        return graph

    @field_validator("data")
    @classmethod
    def _data_agree(cls, data: list[list[BatchDatum]] | None) -> list[list[BatchDatum]] | None:
        for zipped in data or []:
            _check_lengths(zipped)
            for datum in zipped:
                _check_types(datum)
        _check_no_duplicates(data or [])
        return data

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self._template is not None:
            return self  # already validated: a batch in a response is validated again
        for datum in itertools.chain.from_iterable(self.data or []):
            _check_values(self.graph, datum)
        self._template = _template(self)
        self._workflow_json = self.workflow.as_json() if self.workflow else None
        values = sum(map(_mean_length, itertools.chain.from_iterable(self.data or [])))
        self._session_bytes = len(self._template) + len(INITIAL_STATE) + values
        return self

    @property
    def template(self) -> str:
        """The JSON text of the graph, with placeholders for an item's values (see `sessions`)."""
        assert self._template is not None
        return self._template

    @property
    def workflow_json(self) -> str | None:
        """The JSON text of the workflow, if there is one."""
        return self._workflow_json

    @property
    def sizes(self) -> Sizes:
        """Numbers of the batch's parts."""
        data = list(itertools.chain.from_iterable(self.data or []))
        values = sum(len(datum.items) for datum in data)
        return Sizes(len(self.graph.nodes), len(self.graph.edges), len(data), values)

    @property
    def is_large(self) -> bool:
        """Whether work on the whole batch should leave the event loop."""
        return self.workflow is not None or self.sizes.are_large

    def check(self, limits: Limits) -> None:
        """Raise Unprocessable if a size is over its limit."""
        self.sizes.check(limits)
        try:
            for node in self.graph.nodes.values():
                check_size(node, limits)
        except SizeOverLimit as error:
            raise Unprocessable(str(error)) from error

    def check_capacity(self, limits: Limits, capacity: int) -> None:
        """Raise TooLarge if the sessions of the items, `capacity` at most, are over the limit in bytes."""
        count = min(self.requested, capacity)
        if count * self._session_bytes > limits.batch_mib * MIB:
            raise TooLarge(
                f"{count} items with sessions of {self._session_bytes // 1024} KiB are over {limits.batch_mib} MiB "
                "(setting limits.batch_mib): enqueue fewer items at a time"
            )

    @property
    def requested(self) -> int:
        """Number of items that the batch requests."""
        return self.runs * math.prod(len(zipped[0].items) if zipped else 0 for zipped in self.data or [])


def _check_lengths(zipped: list[BatchDatum]) -> None:
    for datum in zipped:
        if len(datum.items) != len(zipped[0].items):
            raise BatchZippedLengthError(
                f"zipped data must have the same number of items: {_name(zipped[0])} has {len(zipped[0].items)}, "
                f"{_name(datum)} has {len(datum.items)}"
            )


def _check_types(datum: BatchDatum) -> None:
    kinds = {type(item) for item in datum.items}
    if len(kinds) > 1 and not kinds <= {int, float}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise BatchItemsTypeError(f"the items of {_name(datum)} must be of one type, not {names}")


def _check_no_duplicates(data: list[list[BatchDatum]]) -> None:
    targets = set()
    for datum in itertools.chain.from_iterable(data):
        target = (datum.node_path, datum.field_name)
        if target in targets:
            raise BatchDuplicateNodeFieldError(f"{_name(datum)} occurs twice in the data")
        targets.add(target)


def _check_values(graph: Graph, datum: BatchDatum) -> None:
    """Validate each value with its field, without validating the graph again."""
    node = graph.nodes.get(datum.node_path)
    if node is None:
        raise NodeNotFoundError(f"the graph has no node {datum.node_path}")
    if datum.field_name not in type(node).model_fields:
        raise NodeNotFoundError(f"node {datum.node_path} ({node.get_type()}) has no field {datum.field_name}")
    if datum.field_name in ("id", "type"):
        raise BatchValueError(f"{_name(datum)} identifies the node and cannot be changed by a batch")
    trial = node.model_copy()
    validator = type(node).__pydantic_validator__
    for position, item in enumerate(datum.items):
        try:
            validator.validate_assignment(trial, datum.field_name, to_json_value(item))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise BatchValueError(f"item {position} of {_name(datum)}: {first['msg']}") from error


def _mean_length(datum: BatchDatum) -> int:
    """Return the approximate mean length of the JSON text of a value."""
    total = sum(len(item) if isinstance(item, str) else 8 for item in datum.items)
    lists = sum(len(str(item)) for item in datum.items if isinstance(item, list))
    return (total + lists) // max(1, len(datum.items))


def _name(datum: BatchDatum) -> str:
    return f"{datum.node_path}.{datum.field_name}"


def to_json_value(value: BatchValue) -> object:
    """Return `value` as a JSON value."""
    if isinstance(value, list):
        return [to_json_value(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


class NewItem(NamedTuple):
    """An item to be inserted."""

    row: tuple[str, str | None, str]
    """Session id, JSON texts of the values as `sessions` stores them, and `field_values` as JSON text."""
    template: str
    """The JSON text of the batch's graph, with placeholders for the values."""

    @property
    def field_values(self) -> str:
        """The item's `field_values` as JSON text."""
        return self.row[2]

    @property
    def session(self) -> str:
        """The JSON text of the whole session."""
        session_id, values, _ = self.row
        return new_session(session_id, fill(self.template, values))


def expand(batch: Batch, limit: int) -> Iterator[NewItem]:
    """Yield the items of `batch` in order, at most `limit`."""
    per_run = [_zip(zipped) for zipped in batch.data or []]
    ids, template = _new_ids(), batch.template
    for _ in range(min(batch.runs, limit)):
        values = map(MARK.join, itertools.product(*(choices.values for choices in per_run)))
        records = map(",".join, itertools.product(*(choices.records for choices in per_run)))
        for value, record in itertools.islice(zip(values, records, strict=True), limit):
            yield NewItem((next(ids), value or None, f"[{record}]"), template)
            limit -= 1


def _new_ids() -> Iterator[str]:
    """Yield random ids in the format of uuid4, 100 per call of os.urandom: a batch may need thousands."""
    while True:
        digits = os.urandom(16 * 100).hex()
        for start in range(0, len(digits), 32):
            chunk = digits[start : start + 32]
            yield f"{chunk[:8]}-{chunk[8:12]}-4{chunk[13:16]}-a{chunk[17:20]}-{chunk[20:]}"


class _Choices(NamedTuple):
    """The rows of one inner list, in order."""

    values: list[str]
    """JSON texts of the values; those of one row are separated by MARK."""
    records: list[str]
    """The same as elements of `field_values`."""


def _zip(zipped: list[BatchDatum]) -> _Choices:
    texts = [
        [str(item) if type(item) is int else _json(to_json_value(item)) for item in datum.items] for datum in zipped
    ]
    records = [_records(datum, column) for datum, column in zip(zipped, texts, strict=True)]
    return _Choices(list(map(MARK.join, zip(*texts, strict=True))), list(map(",".join, zip(*records, strict=True))))


def _records(datum: BatchDatum, texts: list[str]) -> list[str]:
    head = f'{{"node_path":{_json(datum.node_path)},"field_name":{_json(datum.field_name)},"value":'
    return [f"{head}{text}}}" for text in texts]


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""Supports integers of any size, unlike faster encoders, and raises ValueError for NaN and infinity."""


NODES_AT_ONCE, EDGES_AT_ONCE = 4, 200
"""Number of nodes and of edges written in one step."""


def _slices(values: Iterable[Any], length: int) -> Iterator[list[Any]]:
    remaining = iter(values)
    while chunk := list(itertools.islice(remaining, length)):
        yield chunk


def _graph_json(graph: dict[str, Any]) -> str:
    """Return the JSON text of a graph, in steps of a few nodes and edges so that other threads can run in between."""
    nodes = ",".join([_json(dict(chunk))[1:-1] for chunk in _slices(graph["nodes"].items(), NODES_AT_ONCE)])
    edges = ",".join([_json(chunk)[1:-1] for chunk in _slices(graph["edges"], EDGES_AT_ONCE)])
    return f'{{"id":{_json(graph["id"])},"nodes":{{{nodes}}},"edges":[{edges}]}}'


def _template(batch: Batch) -> str:
    """Return the graph as JSON text, with a placeholder per datum and no nulls. Raises ValueError for NaN, infinity."""
    graph = batch.graph.to_json_dict()
    mark = f"@{uuid.uuid4()}@"
    for number, datum in enumerate(itertools.chain.from_iterable(batch.data or [])):
        graph["nodes"][datum.node_path][datum.field_name] = f"{mark}{number}{mark}"
    pieces = _graph_json(graph).split(mark)
    pieces[0:-1:2] = [piece.removesuffix('"') for piece in pieces[0:-1:2]]
    pieces[2::2] = [piece.removeprefix('"') for piece in pieces[2::2]]
    return MARK.join(pieces)
