"""What a batch refuses, and the items it becomes in their order."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.queue.batches import Batch, expand
from invokeclone.queue.schemas import EnqueueBatchResult


def items(batch: dict[str, Any], limit: int = 10_000) -> list[dict[str, Any]]:
    """Expand a batch and read its sessions."""
    expanded = list(expand(Batch.model_validate(batch), limit))
    return [{"session": json.loads(item.session), "values": json.loads(item.field_values)} for item in expanded]


def numbers(batch: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    nodes = [item["session"]["graph"]["nodes"] for item in items(batch)]
    return [tuple(graph_nodes[name]["number"] for name in names) for graph_nodes in nodes]


def test_batch_without_data_has_one_item_per_run(make: Any) -> None:
    expanded = items(make.batch(runs=3))
    assert [item["values"] for item in expanded] == [[], [], []]
    assert len({item["session"]["id"] for item in expanded}) == 3


@pytest.mark.parametrize("data", [None, []])
def test_null_and_empty_data_are_the_same(make: Any, data: Any) -> None:
    assert len(items(make.batch(data=data, runs=2))) == 2


@pytest.mark.parametrize("data", [[[]], [[{"node_path": "a", "field_name": "number", "items": []}]]])
def test_an_empty_list_leaves_no_items(make: Any, data: Any) -> None:
    batch = make.batch(data=data)
    assert items(batch) == []
    assert Batch.model_validate(batch).requested == 0


def test_lists_multiply_with_the_last_varying_fastest_and_runs_outermost(make: Any) -> None:
    graph = make.graph(a={}, b={})
    data = [[make.datum("a", "number", 1, 2)], [make.datum("b", "number", 7, 8, 9)]]
    batch = make.batch(graph=graph, data=data, runs=2)
    once = [(1, 7), (1, 8), (1, 9), (2, 7), (2, 8), (2, 9)]
    assert numbers(batch, "a", "b") == once + once
    assert Batch.model_validate(batch).requested == 12


def test_the_data_of_one_list_advance_together(make: Any) -> None:
    graph = make.graph(a={}, b={}, c={})
    zipped = [make.datum("b", "number", 1, 2), make.datum("a", "number", 10, 20)]
    batch = make.batch(graph=graph, data=[zipped, [make.datum("c", "number", 5, 6)]])
    assert numbers(batch, "b", "a", "c") == [(1, 10, 5), (1, 10, 6), (2, 20, 5), (2, 20, 6)]
    first = items(batch)[0]["values"]
    assert first == [
        {"node_path": "b", "field_name": "number", "value": 1},
        {"node_path": "a", "field_name": "number", "value": 10},
        {"node_path": "c", "field_name": "number", "value": 5},
    ]


def test_serializing_a_response_does_not_revalidate_the_batch(make: Any) -> None:
    """A thousand values take as long to check as to enqueue."""
    data = [[make.datum("a", "number", 1, 2)]]
    batch = Batch.model_validate(make.batch(graph=make.graph(a={}), data=data))
    template = batch.template
    result = EnqueueBatchResult(queue_id="q", enqueued=2, requested=2, batch=batch, priority=0, item_ids=[1, 2])
    assert result.batch.template is template


def test_expansion_stops_at_the_limit(make: Any) -> None:
    graph = make.graph(**{f"n{number}": {} for number in range(12)})
    data = [[make.datum(f"n{number}", "number", *range(100))] for number in range(12)]
    batch = make.batch(graph=graph, data=data)
    assert Batch.model_validate(batch).requested == 100**12
    assert len(items(batch, limit=5)) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 'quotes " and \\ and \n and {} and é'),
        ("text", "@not a mark@0"),
        ("ratio", 0.1),
        ("ratio", 3),
        ("number", -7),
        ("choice", "b"),
        ("image", {"image_name": "x.png"}),
        ("numbers", [1, 2, 3]),
        ("text", 5),
        ("number", 2**70),
    ],
)
def test_values_are_inserted_unchanged(make: Any, field: str, value: Any) -> None:
    item = items(make.batch(data=[[make.datum("a", field, value)]]))[0]
    assert item["session"]["graph"]["nodes"]["a"][field] == value
    assert item["values"] == [{"node_path": "a", "field_name": field, "value": value}]


def test_the_rest_of_the_graph_is_kept_and_nulls_are_left_out(make: Any) -> None:
    graph = make.graph(a={"text": "kept", "number": 1})
    node = items(make.batch(graph=graph, data=[[make.datum("a", "number", 2)]]))[0]["session"]["graph"]["nodes"]["a"]
    assert (node["text"], node["number"]) == ("kept", 2)
    assert "image" not in node


def test_stored_session_is_readable_and_not_started(make: Any) -> None:
    text = next(expand(Batch.model_validate(make.batch(data=[[make.datum("a", "number", 2)]])), 1)).session
    session = GraphExecutionState.model_validate_json(text)
    assert session.graph.nodes["a"].number == 2  # type: ignore[attr-defined]
    assert not session.is_complete()
    assert session.execution_graph.nodes == {}
    fresh = json.loads(GraphExecutionState(graph=session.graph).model_dump_json(exclude_none=True))
    assert set(fresh) == set(json.loads(text))


REFUSED = [
    ([["small", 10]], "BatchValueError", "item 0 of a.small"),
    ([["number", 1, 2], ["small", 1]], "BatchZippedLengthError", "the same number of items"),
    ([["text", "x", 1]], "BatchItemsTypeError", "of one type"),
    ([["number", 1], ["number", 2]], "BatchDuplicateNodeFieldError", "occurs twice"),
    ([["number", "many"]], "BatchValueError", "item 0 of a.number"),
    ([["number", 1, 1.5]], "BatchValueError", "item 1 of a.number"),
    ([["choice", "c"]], "BatchValueError", "item 0 of a.choice"),
    ([["image", "x.png"]], "BatchValueError", "item 0 of a.image"),
    ([["numbers", ["x"]]], "BatchValueError", "item 0 of a.numbers"),
    ([["id", "b"]], "BatchValueError", "cannot be changed"),
    ([["type", "string"]], "BatchValueError", "cannot be changed"),
    ([["colour", 1]], "NodeNotFoundError", "no field colour"),
]


@pytest.mark.parametrize(("zipped", "error", "words"), REFUSED)
def test_mismatched_batch_data_are_refused(make: Any, zipped: list[list[Any]], error: str, words: str) -> None:
    data = [[make.datum("a", field, *values) for field, *values in zipped]]
    with pytest.raises(ValidationError) as caught:
        Batch.model_validate(make.batch(data=data))
    (detail,) = caught.value.errors()
    assert type(detail["ctx"]["error"]).__name__ == error
    assert words in detail["msg"]


def test_unknown_node_is_refused(make: Any) -> None:
    with pytest.raises(ValidationError, match="no node z"):
        Batch.model_validate(make.batch(data=[[make.datum("z", "number", 1)]]))


def test_duplicate_field_is_refused(make: Any) -> None:
    data = [[make.datum("a", "number", 1)], [make.datum("a", "number", 2)]]
    with pytest.raises(ValidationError, match="occurs twice"):
        Batch.model_validate(make.batch(data=data))


def test_integers_and_floats_can_be_mixed(make: Any) -> None:
    batch = make.batch(data=[[make.datum("a", "ratio", 1, 0.5)]])
    assert [item["values"][0]["value"] for item in items(batch)] == [1, 0.5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_number_is_refused(make: Any, value: float) -> None:
    with pytest.raises(ValidationError):
        Batch.model_validate(make.batch(data=[[make.datum("a", "ratio", value)]]))


def test_validation_does_not_change_the_graph(make: Any) -> None:
    batch = Batch.model_validate(make.batch(data=[[make.datum("a", "number", 5)]]))
    assert batch.graph.nodes["a"].number == 0  # type: ignore[attr-defined]
