"""Lists of the library: pages, order, filters, counts and tags; what they cost is a matter of one index and no JSON."""

import pytest
from sqlalchemy import text

from invokeclone.graph.invocations import registry
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.workflows import store
from invokeclone.workflows.schemas import WorkflowRecordOrderBy
from invokeclone.workflows.store import Filter
from tests.workflows.drawing import callable_workflow, workflow
from tests.workflows.test_library import WORKFLOWS, add_default, make


async def names(client, **params: object) -> list[str]:
    answer = await client.get(f"{WORKFLOWS}/", params=params)
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


async def test_list_item_has_all_fields(client) -> None:
    record = await make(client, "n", tags="a")
    listed = (await client.get(f"{WORKFLOWS}/")).json()
    message = listed["items"][0]["call_saved_workflow_compatibility"]["message"]
    assert listed == {
        "page": 0,
        "pages": 1,
        "per_page": 1,
        "total": 1,
        "items": [
            {
                **{key: value for key, value in record.items() if key != "workflow"},
                "description": "d n",
                "category": "user",
                "tags": "a",
                "thumbnail_url": None,
                "call_saved_workflow_compatibility": {
                    "is_callable": False,
                    "reason": "missing_workflow_return",
                    "message": message,
                },
            }
        ],
    }


async def test_empty_list(client) -> None:
    assert (await client.get(f"{WORKFLOWS}/")).json() == {"page": 0, "pages": 1, "per_page": 0, "total": 0, "items": []}


async def test_lists_are_paged(client) -> None:
    for name in "cabed":
        await make(client, name)

    async def page(**params: int) -> tuple[object, ...]:
        got = (await client.get(f"{WORKFLOWS}/", params=params)).json()
        return "".join(item["name"] for item in got["items"]), got["page"], got["pages"], got["per_page"], got["total"]

    assert await page(per_page=2) == ("ab", 0, 3, 2, 5)
    assert await page(per_page=2, page=2) == ("e", 2, 3, 2, 5)
    assert await page(per_page=2, page=3) == ("", 3, 3, 2, 5)
    assert await page(per_page=10_000, page=2**62) == ("", 2**62, 1, 10_000, 5)
    assert await page(per_page=0) == ("abcde", 0, 1, 5, 5)
    for wrong in (
        {"page": -1},
        {"per_page": -1},
        {"per_page": "many"},
        {"page": 10**30},
        {"per_page": 10_001},
        {"per_page": 10**30},
    ):
        assert (await client.get(f"{WORKFLOWS}/", params=wrong)).status_code == 422


async def test_lists_are_ordered(client) -> None:
    ids = {name: (await make(client, name))["workflow_id"] for name in ("b", "c", "a")}
    await client.put(f"{WORKFLOWS}/i/{ids['c']}/opened_at")
    await client.patch(f"{WORKFLOWS}/i/{ids['c']}/is_public", json={"is_public": False})
    assert await names(client) == ["a", "b", "c"]
    assert await names(client, direction="DESC") == ["c", "b", "a"]
    assert set(await names(client, order_by="created_at")) == {"a", "b", "c"}
    assert (await names(client, order_by="updated_at", direction="DESC"))[0] == "c"
    assert (await names(client, order_by="opened_at", direction="DESC"))[0] == "c"
    assert (await names(client, order_by="is_public"))[0] == "c"
    assert (await client.get(f"{WORKFLOWS}/", params={"order_by": "workflow"})).status_code == 422


async def test_search_matches_name_description_and_tags(client) -> None:
    await make(client, "One 50%", tags="first_x")
    await make(client, "Two", description="about ONE")
    await make(client, "Three", tags="someone")
    await make(client, "Four")
    assert await names(client, query="one") == ["One 50%", "Three", "Two"]
    assert await names(client, query="%") == ["One 50%"]
    assert await names(client, query="t_x") == ["One 50%"]
    assert await names(client, query="") == ["Four", "One 50%", "Three", "Two"]
    assert await names(client, query="' OR 1=1 --") == []


async def test_list_filters(client, resources) -> None:
    first = await make(client, "first", tags="sd1.5, video")
    await make(client, "second", tags="SDXL")
    await make(client, "third", category="project")
    await add_default(resources, tags="sdxl")
    await client.put(f"{WORKFLOWS}/i/{first['workflow_id']}/opened_at")
    assert await names(client, categories=["user"]) == ["first", "second"]
    assert await names(client, categories=["project", "default"]) == ["default_one", "third"]
    assert await names(client, tags=["sdxl"]) == ["default_one", "second"]
    assert await names(client, tags=["sd"]) == ["default_one", "first", "second"]
    assert await names(client, tags=["video", "xl"], categories=["user"]) == ["first", "second"]
    assert await names(client, has_been_opened=True) == ["first"]
    assert await names(client, has_been_opened=False) == ["default_one", "second", "third"]
    assert await names(client, is_public=True) == ["first", "second", "third"]
    assert await names(client, is_public=False) == ["default_one"]
    assert await names(client, is_published=True) == []
    assert len(await names(client, is_published=False)) == 4
    assert (await client.get(f"{WORKFLOWS}/", params={"categories": "other"})).status_code == 422


async def test_callable_filter_selects_callable_workflows(client) -> None:
    await client.post(f"{WORKFLOWS}/", json={"workflow": callable_workflow("may")})
    await make(client, "may not")
    assert await names(client, callable=True) == ["may"]
    assert await names(client, callable=False) == ["may not"]


async def test_counts_and_tags(client, resources) -> None:
    first = await make(client, "first", tags="b, a b,,c")
    await make(client, "second", tags="C, b")
    await make(client, "third", category="project", tags="z")
    await add_default(resources, tags="b")
    await client.put(f"{WORKFLOWS}/i/{first['workflow_id']}/opened_at")

    async def get(what: str, **params: object) -> object:
        return (await client.get(f"{WORKFLOWS}/{what}", params=params)).json()

    assert await get("tags") == ["C", "a b", "b", "c", "z"]
    assert await get("tags", categories=["default"]) == ["b"]
    assert await get("tags", is_public=False) == ["b"]
    assert await get("counts_by_tag", tags=["b", "c", "nope"]) == {"b": 3, "c": 2, "nope": 0}
    assert await get("counts_by_tag", tags=["b"], categories=["user"]) == {"b": 2}
    assert await get("counts_by_tag", tags=["b"], has_been_opened=True) == {"b": 1}
    assert await get("counts_by_tag", tags=["b"], is_public=False) == {"b": 1}
    everywhere = {"user": 2, "default": 1, "project": 1}
    assert await get("counts_by_category", categories=list(everywhere)) == everywhere
    assert await get("counts_by_category", categories=["user"], has_been_opened=False) == {"user": 1}
    assert await get("counts_by_category", categories=["user", "default"], is_public=True) == {"user": 2, "default": 0}
    for what in ("counts_by_tag", "counts_by_category"):
        assert (await client.get(f"{WORKFLOWS}/{what}")).status_code == 422


@pytest.mark.sqlite("reads SQLite's plan of a query")
async def test_lists_skip_the_workflow_column_and_find_outdated_rows_by_index(client, resources) -> None:
    await make(client)
    shape = Filter(categories=())
    statement = store._page(shape, WorkflowRecordOrderBy.Name, SQLiteDirection.Ascending)
    assert "workflow" not in {column.name for column in statement.selected_columns}
    async with resources.database.read() as connection:
        unjudged = "SELECT workflow_id FROM workflows WHERE judged_by < 'x' OR judged_by > 'x'"
        plan = (await connection.execute(text(f"EXPLAIN QUERY PLAN {unjudged}"))).all()
    assert "ix_workflows_judged" in str(plan)
    assert "SCAN" not in str(plan)


async def test_compatibility_is_recomputed_when_node_types_change(client, own_nodes) -> None:
    count = 25
    for number in range(count):
        await client.post(f"{WORKFLOWS}/", json={"workflow": callable_workflow(f"c{number}")})
    await client.post(f"{WORKFLOWS}/", json={"workflow": workflow("none")})
    assert len(await names(client, callable=True)) == count
    del registry._nodes["integer"]
    registry._invalidate_caches()
    listed = (await client.get(f"{WORKFLOWS}/")).json()["items"]
    reasons = [item["call_saved_workflow_compatibility"]["reason"] for item in listed]
    assert reasons == ["unsupported_node"] * count + ["missing_workflow_return"]
    assert await names(client, callable=True) == []
