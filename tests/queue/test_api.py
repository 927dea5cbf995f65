"""Every route: what it answers, and what it refuses."""

from typing import Any

import httpx
import pytest

from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, store

Client = httpx.AsyncClient


async def get(client: Client, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def send_put(client: Client, path: str, body: Any = None, **query: str) -> Any:
    answer = await client.put(path, json=body, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def delete(client: Client, path: str) -> Any:
    answer = await client.delete(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def statuses(client: Client) -> dict[int, str]:
    return {item["item_id"]: item["status"] for item in await get(client, "list_all")}


@pytest.fixture
async def mixed(enqueue: Any, resources: Resources) -> dict[str, int]:
    """One item in each status but waiting, batch and destination named after the status; `running` is in progress."""
    item_ids = {}
    for status in ("completed", "failed", "canceled", "running", "pending"):
        item_ids[status] = (await enqueue(batch_id=f"b-{status}", destination=f"d-{status}"))["item_ids"][0]
        if status == "pending":
            continue
        await claims.claim(resources, "cpu")
        if status != "running":
            error = ("ValueError", "no", "trace") if status == "failed" else None
            await claims.finish(resources, item_ids[status], status, error=error)  # type: ignore[arg-type]
    return item_ids


# enqueue_batch


async def test_enqueue_returns_a_summary(client: Client, make: Any) -> None:
    batch = make.batch(batch_id="b1", origin="o", destination="d", runs=3)
    answer = await client.post("enqueue_batch", json={"batch": batch, "prepend": False})
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["queue_id", "enqueued", "requested", "batch", "priority", "item_ids"]
    assert (body["queue_id"], body["enqueued"], body["requested"], body["priority"]) == ("default", 3, 3, 0)
    assert body["item_ids"] == sorted(body["item_ids"], reverse=True)
    assert body["batch"]["batch_id"] == "b1"
    assert body["batch"]["data"] is None
    assert body["batch"]["graph"]["nodes"]["a"]["image"] is None


async def test_a_batch_gets_an_id(enqueue: Any) -> None:
    assert len((await enqueue())["batch"]["batch_id"]) == 36


async def test_reusing_a_batch_id_returns_earlier_items_too(enqueue: Any) -> None:
    first = await enqueue(batch_id="again", runs=2)
    second = await enqueue(batch_id="again")
    assert second["item_ids"][1:] == first["item_ids"]
    assert second["enqueued"] == 1


async def test_prepended_batches_precede_all_pending_items(client: Client, enqueue: Any) -> None:
    await enqueue(batch_id="last")
    assert (await enqueue(batch_id="second", prepend=True))["priority"] == 1
    assert (await enqueue(batch_id="first", prepend=True, runs=2))["priority"] == 2
    assert (await enqueue(batch_id="elsewhere", prepend=True, queue="other"))["priority"] == 1
    listed = [(item["batch_id"], item["priority"]) for item in await get(client, "list_all")]
    assert listed == [("first", 2), ("first", 2), ("second", 1), ("last", 0)]


async def test_a_pending_item_is_moved_before_all_others(
    client: Client, enqueue: Any, mixed: dict[str, int], resources: Resources
) -> None:
    first, second = mixed["pending"], (await enqueue())["item_ids"][0]
    await enqueue(queue="other")
    assert (await get(client, "pending_item_ids"))["item_ids"] == [first, second]
    for item_id, order in ((second, [second, first]), (second, [second, first]), (first, [first, second])):
        assert (await send_put(client, f"i/{item_id}/prepend"))["item_id"] == item_id
        assert await get(client, "pending_item_ids") == {"item_ids": order, "total_count": 2}
    priority = (await get(client, f"i/{mixed['failed']}"))["priority"]
    assert (await send_put(client, f"i/{mixed['failed']}/prepend"))["priority"] == priority
    item = await claims.claim(resources, "cpu")
    assert item is not None
    assert item.item_id == first


async def test_older_clients_may_send_validation_run_data(client: Client, make: Any) -> None:
    data = {"workflow_id": "w", "input_fields": [], "output_fields": []}
    body = {"batch": make.batch(), "validation_run_data": data}
    assert (await client.post("enqueue_batch", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("change", "location"),
    [
        ({"runs": 0}, ["body", "batch", "runs"]),
        ({"data": [[{"node_path": "a", "field_name": "number", "items": [1, "x"]}]]}, ["body", "batch", "data"]),
        ({"data": [[{"node_path": "z", "field_name": "number", "items": [1]}]]}, ["body", "batch"]),
        ({"data": [[{"node_path": "a", "field_name": "number", "items": ["x"]}]]}, ["body", "batch"]),
        ({"graph": {"nodes": {"b": {"id": "a", "type": "queue_test"}}}}, ["body", "batch", "graph"]),
        ({"graph": {"nodes": {"a": {"id": "a", "type": "queue_test", "number": "x"}}}}, None),
        ({"graph": {"nodes": {"a": {"id": "a", "type": "no_such_node"}}}}, None),
    ],
)
async def test_invalid_batches_are_refused_with_the_error_location(
    client: Client, make: Any, change: dict[str, Any], location: list[str] | None
) -> None:
    answer = await client.post("enqueue_batch", json={"batch": make.batch(**change)})
    assert answer.status_code == 422, answer.text
    error_location = answer.json()["detail"][0]["loc"]
    assert error_location == location or (
        location is None and error_location[:4] == ["body", "batch", "graph", "nodes"]
    )
    assert await get(client, "list_all") == []


async def test_a_refused_value_names_its_error(client: Client, make: Any) -> None:
    data = [[make.datum("a", "small", 1, 2, 99)]]
    answer = await client.post("enqueue_batch", json={"batch": make.batch(data=data)})
    detail = answer.json()["detail"][0]
    assert (detail["type"], answer.status_code) == ("value_error", 422)
    assert detail["msg"].startswith("Value error, item 2 of a.small")


class TestFullQueue:
    @pytest.fixture
    def settings(self, settings: Any) -> Any:
        return settings.model_copy(update={"max_queue_size": 3})

    async def test_full_queue_accepts_items_up_to_its_limit(self, enqueue: Any) -> None:
        first = await enqueue(runs=5)
        assert (first["enqueued"], first["requested"], len(first["item_ids"])) == (3, 5, 3)
        full = await enqueue()
        assert (full["enqueued"], full["requested"], full["item_ids"]) == (0, 1, [])

    async def test_limit_counts_only_pending_items_of_this_queue(
        self, client: Client, enqueue: Any, resources: Resources
    ) -> None:
        await enqueue(runs=3)
        await claims.claim(resources, "cpu")
        assert (await enqueue(runs=2))["enqueued"] == 1
        assert (await enqueue(queue="other"))["enqueued"] == 1
        await send_put(client, "cancel_all_except_current")
        assert (await enqueue(runs=4))["enqueued"] == 3

    async def test_retries_stop_at_the_limit(self, client: Client, enqueue: Any) -> None:
        ids = (await enqueue(runs=3))["item_ids"][::-1]
        await send_put(client, "cancel_all_except_current")
        await enqueue(runs=2)
        assert (await send_put(client, "retry_items_by_id", ids))["retried_item_ids"] == ids[:1]


async def test_non_finite_numbers_are_refused(client: Client) -> None:
    body = '{"batch":{"graph":{"nodes":{"a":{"id":"a","type":"queue_test","ratio":NaN}}}}}'
    answer = await client.post("enqueue_batch", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text


async def test_64_bit_integers_and_control_characters_are_preserved(client: Client, enqueue: Any, make: Any) -> None:
    graph = make.graph(a={"number": 2**64 - 1})
    data = [[make.datum("a", "text", "\x01\u2028\U0001f600")]]
    item_id = (await enqueue(graph=graph, data=data, origin="a\x01b", destination='"}'))["item_ids"][0]
    item = await get(client, f"i/{item_id}")
    assert (item["origin"], item["destination"]) == ("a\x01b", '"}')
    node = item["session"]["graph"]["nodes"]["a"]
    assert (node["number"], node["text"]) == (2**64 - 1, "\x01\u2028\U0001f600")


async def test_impossible_item_ids_are_ignored(client: Client, enqueue: Any) -> None:
    item_id = (await enqueue())["item_ids"][0]
    item_ids = [2**64 - 1, -1, 0, item_id]
    answer = await client.post("items_by_ids", json={"item_ids": item_ids})
    assert [item["item_id"] for item in answer.json()] == [item_id]
    assert (await send_put(client, "retry_items_by_id", item_ids))["retried_item_ids"] == []


# reading


NULLABLE = {"origin", "destination", "error_type", "error_message", "error_traceback", "started_at", "completed_at",
            "retried_from_item_id", "device", "workflow_call_id", "parent_item_id", "parent_session_id",
            "root_item_id", "workflow_call_depth", "workflow"}  # fmt: skip


async def test_an_item_leaves_out_nulls_alone_and_keeps_them_in_lists(client: Client, enqueue: Any) -> None:
    item_id = (await enqueue())["item_ids"][0]
    alone = await get(client, f"i/{item_id}")
    (listed,) = await get(client, "list_all")
    assert list(listed) == [
        "item_id", "status", "status_sequence", "priority", "batch_id", "origin", "destination", "session_id",
        "error_type", "error_message", "error_traceback", "created_at", "updated_at", "started_at", "completed_at",
        "queue_id", "user_id", "user_display_name", "user_email", "field_values", "retried_from_item_id", "device",
        "workflow_call_id", "parent_item_id", "parent_session_id", "root_item_id", "workflow_call_depth", "session",
        "workflow",
    ]  # fmt: skip
    assert {key: value for key, value in listed.items() if value is not None} == alone
    assert {key for key in listed if key not in alone} == NULLABLE
    assert (listed["user_id"], listed["user_display_name"]) == ("system", "System")
    assert listed["session"]["id"] == listed["session_id"]
    assert listed["created_at"] == listed["updated_at"]


async def test_workflow_is_stored_with_its_items(client: Client, enqueue: Any) -> None:
    workflow: dict[str, Any] = dict.fromkeys(
        ("name", "author", "description", "version", "contact", "tags", "notes"), ""
    )
    workflow |= {
        "exposedFields": [],
        "meta": {"version": "3.0.0", "category": "user"},
        "nodes": [{"x": "é"}],
        "edges": [],
    }
    item_id = (await enqueue(workflow=workflow))["item_ids"][0]
    assert (await get(client, f"i/{item_id}"))["workflow"] == workflow | {"form": None}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_item_is_not_found(client: Client, method: str) -> None:
    answer = await client.request(method, "i/99")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Queue default has no item 99"})


@pytest.mark.parametrize(("method", "end"), [("GET", ""), ("DELETE", ""), ("PUT", "/cancel")])
async def test_item_of_another_queue_is_not_found(client: Client, enqueue: Any, method: str, end: str) -> None:
    item_id = (await enqueue(queue="other"))["item_ids"][0]
    assert (await client.request(method, f"i/{item_id}{end}")).status_code == 404


async def test_an_item_id_is_a_number(client: Client) -> None:
    assert (await client.get("i/x")).status_code == 422


async def test_listing_can_be_narrowed_to_a_destination(client: Client, enqueue: Any) -> None:
    await enqueue(destination="here", batch_id="b1")
    await enqueue(destination="there", batch_id="b2")
    assert [item["batch_id"] for item in await get(client, "list_all?destination=here")] == ["b1"]
    assert await get(client, "list_all?destination=nowhere") == []


async def test_ids_are_listed_by_time_and_ascending_within_a_batch(client: Client, enqueue: Any) -> None:
    first, second = (await enqueue(runs=2))["item_ids"][::-1], (await enqueue(runs=2))["item_ids"][::-1]
    assert (await get(client, "item_ids?order_dir=ASC"))["item_ids"] == first + second
    newest = await get(client, "item_ids")
    assert newest["total_count"] == 4
    assert newest["item_ids"] in (second + first, first + second)  # the same millisecond keeps them ascending
    assert (await client.get("item_ids?order_dir=up")).status_code == 422


@pytest.mark.parametrize("route", ["items_by_ids", "item_summaries_by_ids"])
async def test_items_are_returned_in_the_requested_order(client: Client, enqueue: Any, route: str) -> None:
    third, second, first = (await enqueue(runs=3))["item_ids"]
    other = (await enqueue(queue="other"))["item_ids"][0]
    answer = await client.post(route, json={"item_ids": [second, 99, other, third, first]})
    assert [item["item_id"] for item in answer.json()] == [second, third, first]
    assert (await client.post(route, json={"item_ids": []})).json() == []
    assert (await client.post(route, json={"item_ids": [1] * 1001})).status_code == 422
    assert (await client.post(route, json=[1])).status_code == 422


async def test_a_summary_has_its_fields_and_no_session(client: Client, enqueue: Any) -> None:
    item_id = (await enqueue(origin="o"))["item_ids"][0]
    (summary,) = (await client.post("item_summaries_by_ids", json={"item_ids": [item_id]})).json()
    assert list(summary) == [
        "item_id", "created_at", "status", "device", "started_at", "completed_at", "origin", "destination", "batch_id",
        "user_id", "user_display_name", "user_email", "field_values", "parent_item_id",
    ]  # fmt: skip
    assert (summary["origin"], summary["field_values"]) == ("o", [])


async def test_current_and_next_are_null_without_items(client: Client) -> None:
    assert await get(client, "current") is None
    assert await get(client, "next") is None


async def test_current_is_the_running_item_and_next_the_first_pending(
    client: Client, enqueue: Any, resources: Resources
) -> None:
    await enqueue(batch_id="one", runs=2)
    await enqueue(batch_id="two", prepend=True)
    await claims.claim(resources, "cpu")
    current, following = await get(client, "current"), await get(client, "next")
    assert (current["batch_id"], current["status"], current["device"]) == ("two", "in_progress", "cpu")
    assert (following["batch_id"], following["started_at"]) == ("one", None)


async def test_status_counts_everything(client: Client, mixed: dict[str, int]) -> None:
    status = await get(client, "status")
    running = await get(client, f"i/{mixed['running']}")
    assert status == {
        "queue": {
            "queue_id": "default", "item_id": mixed["running"], "batch_id": "b-running",
            "session_id": running["session_id"], "pending": 1, "in_progress": 1, "waiting": 0, "completed": 1,
            "failed": 1, "canceled": 1, "total": 5, "user_pending": 1, "user_in_progress": 1,
        },
        "processor": {"is_started": True, "is_processing": True},
    }  # fmt: skip


async def test_unknown_queue_has_an_empty_status(client: Client) -> None:
    status = (await client.get("http://test/api/v1/queue/nowhere/status")).json()["queue"]
    assert (status["item_id"], status["total"], status["user_pending"], status["user_in_progress"]) == (None, 0, 0, 0)


async def test_batch_status(client: Client, enqueue: Any, resources: Resources) -> None:
    await enqueue(batch_id="b", origin="o", destination="d", runs=3)
    await claims.claim(resources, "cpu")
    zeros = {"waiting": 0, "completed": 0, "failed": 0, "canceled": 0}
    assert await get(client, "b/b/status") == {
        "queue_id": "default", "batch_id": "b", "origin": "o", "destination": "d", "pending": 2, "in_progress": 1,
        "total": 3, **zeros,
    }  # fmt: skip
    assert await get(client, "b/nobody/status") == {
        "queue_id": "default", "batch_id": "nobody", "origin": None, "destination": None, "pending": 0,
        "in_progress": 0, "total": 0, **zeros,
    }  # fmt: skip


async def test_counts_by_destination(client: Client, mixed: dict[str, int]) -> None:
    counts = await get(client, "counts_by_destination?destination=d-completed")
    assert (counts["destination"], counts["completed"], counts["total"]) == ("d-completed", 1, 1)
    assert (await get(client, "counts_by_destination?destination=none"))["total"] == 0
    assert (await client.get("counts_by_destination")).status_code == 422
    assert mixed


# canceling


async def test_canceling_a_pending_item(client: Client, enqueue: Any) -> None:
    item_id = (await enqueue())["item_ids"][0]
    item = await send_put(client, f"i/{item_id}/cancel")
    assert (item["status"], item["status_sequence"], item["started_at"]) == ("canceled", 1, None)
    assert item["completed_at"] == item["updated_at"] >= item["created_at"]
    assert item["error_type"] is None
    assert (await client.put("i/99/cancel")).status_code == 404


async def test_canceling_a_running_item(client: Client, mixed: dict[str, int]) -> None:
    item = await send_put(client, f"i/{mixed['running']}/cancel")
    assert (item["status"], item["status_sequence"], item["device"]) == ("canceled", 2, "cpu")


@pytest.mark.parametrize("status", ["completed", "failed", "canceled"])
async def test_canceling_a_finished_item_changes_nothing(
    client: Client, mixed: dict[str, int], events: Any, status: str
) -> None:
    before = (await client.post("items_by_ids", json={"item_ids": [mixed[status]]})).json()[0]
    events.sent.clear()
    assert await send_put(client, f"i/{mixed[status]}/cancel") == before
    assert events.sent == []


async def test_canceling_batches(client: Client, mixed: dict[str, int]) -> None:
    assert await send_put(client, "cancel_by_batch_ids", {"batch_ids": []}) == {"canceled": 0}
    ids = ["b-pending", "b-running", "b-completed", "b-unknown"]
    assert await send_put(client, "cancel_by_batch_ids", {"batch_ids": ids}) == {"canceled": 2}
    after = await statuses(client)
    assert (after[mixed["pending"]], after[mixed["running"]]) == ("canceled", "canceled")
    assert (after[mixed["completed"]], after[mixed["failed"]]) == ("completed", "failed")
    assert (await client.put("cancel_by_batch_ids", json={})).status_code == 422


async def test_canceling_a_destination(client: Client, mixed: dict[str, int]) -> None:
    assert await send_put(client, "cancel_by_destination", destination="d-pending") == {"canceled": 1}
    assert await send_put(client, "cancel_by_destination", destination="d-running") == {"canceled": 1}
    assert await send_put(client, "cancel_by_destination", destination="d-completed") == {"canceled": 0}
    assert set((await statuses(client)).values()) == {"completed", "failed", "canceled"}
    assert (await client.put("cancel_by_destination")).status_code == 422
    assert mixed


async def test_canceling_all_except_running_items(client: Client, mixed: dict[str, int], enqueue: Any) -> None:
    elsewhere = await enqueue(queue="other")
    assert await send_put(client, "cancel_all_except_current") == {"canceled": 1}
    after = await statuses(client)
    assert (after[mixed["pending"]], after[mixed["running"]]) == ("canceled", "in_progress")
    other = await client.get(f"http://test/api/v1/queue/other/i/{elsewhere['item_ids'][0]}")
    assert other.json()["status"] == "pending"


# deleting


async def test_deleting_items(client: Client, mixed: dict[str, int]) -> None:
    for item_id in mixed.values():
        assert await delete(client, f"i/{item_id}") is None
    assert await get(client, "list_all") == []


async def test_deleting_all_except_current_keeps_history(client: Client, mixed: dict[str, int]) -> None:
    assert await send_put(client, "delete_all_except_current") == {"deleted": 1}
    assert set(await statuses(client)) == set(mixed.values()) - {mixed["pending"]}


async def test_deleting_a_destination_deletes_its_history(client: Client, enqueue: Any, resources: Resources) -> None:
    ids = (await enqueue(destination="gone", runs=3))["item_ids"]
    remaining = (await enqueue(destination="kept"))["item_ids"]
    first = await claims.claim(resources, "cpu")
    assert first
    await claims.finish(resources, first.item_id, "completed")
    await claims.claim(resources, "cpu")
    assert await delete(client, "d/gone") == {"deleted": len(ids)}
    assert list(await statuses(client)) == remaining
    assert await delete(client, "d/gone") == {"deleted": 0}


async def test_pruning_deletes_finished_items(client: Client, mixed: dict[str, int]) -> None:
    assert await send_put(client, "prune") == {"deleted": 3}
    assert set(await statuses(client)) == {mixed["running"], mixed["pending"]}


async def test_clearing_deletes_everything_of_this_queue(client: Client, mixed: dict[str, int], enqueue: Any) -> None:
    await enqueue(queue="other")
    assert await send_put(client, "clear") == {"deleted": len(mixed)}
    assert await get(client, "list_all") == []
    assert (await client.get("http://test/api/v1/queue/other/status")).json()["queue"]["total"] == 1


async def test_item_ids_are_never_used_again(client: Client, enqueue: Any) -> None:
    first = (await enqueue())["item_ids"][0]
    await send_put(client, "clear")
    assert (await enqueue())["item_ids"][0] == first + 1


# retrying


async def test_a_retry_is_a_fresh_copy(client: Client, enqueue: Any, make: Any, resources: Resources) -> None:
    data = [[make.datum("a", "text", 'say "é"')]]
    body = await enqueue(data=data, origin="o", destination="d", prepend=True)
    old_id = body["item_ids"][0]
    await claims.claim(resources, "cpu")
    await claims.finish(resources, old_id, "failed", error=("ValueError", "no", "trace"))
    assert await send_put(client, "retry_items_by_id", [old_id]) == {
        "queue_id": "default",
        "retried_item_ids": [old_id],
    }
    old, new = await get(client, f"i/{old_id}"), await get(client, "next")
    assert (old["status"], old["error_type"]) == ("failed", "ValueError")
    assert new["session_id"] == new["session"]["id"] != old["session_id"]
    assert new["session"]["graph"] == old["session"]["graph"]
    assert new["session"]["results"] == {}
    for same in ("batch_id", "priority", "origin", "destination", "field_values", "user_id", "queue_id"):
        assert new[same] == old[same]
    assert (new["status_sequence"], new["retried_from_item_id"], new["device"]) == (0, old_id, None)
    assert (new["started_at"], new["completed_at"], new["error_type"]) == (None, None, None)


async def test_a_retry_of_a_retry_points_at_the_first(client: Client, enqueue: Any) -> None:
    first = (await enqueue())["item_ids"][0]
    await send_put(client, f"i/{first}/cancel")
    await send_put(client, "retry_items_by_id", [first])
    second = (await get(client, "next"))["item_id"]
    await send_put(client, f"i/{second}/cancel")
    assert (await send_put(client, "retry_items_by_id", [second]))["retried_item_ids"] == [second]
    assert (await get(client, "next"))["retried_from_item_id"] == first


async def test_only_failed_or_canceled_items_are_retried(client: Client, mixed: dict[str, int]) -> None:
    item_ids = [mixed["canceled"], mixed["failed"], 99, mixed["failed"], mixed["running"], mixed["pending"],
             mixed["completed"]]  # fmt: skip
    assert (await send_put(client, "retry_items_by_id", item_ids))["retried_item_ids"] == [
        mixed["canceled"],
        mixed["failed"],
    ]
    assert (await send_put(client, "retry_items_by_id", []))["retried_item_ids"] == []
    assert (await client.put("retry_items_by_id", json={"item_ids": [1]})).status_code == 422


async def test_retrying_an_item_of_another_queue_is_404(client: Client, enqueue: Any) -> None:
    item_id, other = (await enqueue())["item_ids"][0], (await enqueue(queue="other"))["item_ids"][0]
    await send_put(client, f"i/{item_id}/cancel")
    assert (await client.put("retry_items_by_id", json=[item_id, other])).status_code == 404
    assert len(await get(client, "list_all")) == 1


# the processor


async def test_pausing_and_resuming(client: Client, enqueue: Any, resources: Resources) -> None:
    paused = {"is_started": False, "is_processing": False}
    assert await send_put(client, "processor/pause") == paused
    assert await send_put(client, "processor/pause") == paused
    await enqueue()
    assert await claims.claim(resources, "cpu") is None
    assert (await get(client, "status"))["processor"] == paused
    assert await send_put(client, "processor/resume") == {"is_started": True, "is_processing": False}
    assert await send_put(client, "processor/resume") == {"is_started": True, "is_processing": False}
    assert await claims.claim(resources, "cpu")
    assert await send_put(client, "processor/pause") == {"is_started": False, "is_processing": True}


async def test_long_queue_is_listed_completely_and_in_order(client: Client, enqueue: Any, make: Any) -> None:
    count = 2 * store.CHUNK_ITEMS + 1
    first = await enqueue(data=[[make.datum("a", "number", *range(count))]])
    prepended = (await enqueue(prepend=True))["item_ids"]
    listed = await get(client, "list_all")
    assert [item["item_id"] for item in listed] == [*prepended, *sorted(first["item_ids"])]
    numbers = [item["field_values"][0]["value"] for item in listed[1:]]
    assert numbers == list(range(count))
