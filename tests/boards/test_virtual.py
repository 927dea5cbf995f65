"""Virtual boards: a board per day, counted as things come, change and go."""

from typing import Any

import httpx
import pytest
from sqlalchemy import delete, insert, update

from invokeclone.boards import virtual
from invokeclone.boards.api import router as boards_router
from invokeclone.boards.virtual_api import router as virtual_router
from invokeclone.kit.resources import Resources
from invokeclone.tables import images, videos
from tests.applications import serving
from tests.images.gallery.conftest import row
from tests.images.people import asking, multiuser, register

BY_DATE = "/api/v1/virtual_boards/by_date"
ONE, TWO, THREE = (f"2026-01-0{day}" for day in (1, 2, 3))


@pytest.fixture
async def client(resources: Resources):
    async with serving(resources, virtual_router, boards_router) as served:
        yield served


async def make(resources: Resources, *rows: dict) -> None:
    async with resources.database.write() as connection:
        for values in rows:
            await connection.execute(insert(images if "image_name" in values else videos).values(**values))


def days(*rows: dict) -> list[dict]:
    return [
        {"virtual_board_id": f"by_date:{fields['date']}", "board_name": fields["date"], "cover_image_name": None, "cover_video_name": None, **fields}
        for fields in rows
    ]  # fmt: skip


async def test_lists_one_board_per_day(client: httpx.AsyncClient, resources: Resources) -> None:
    """The cover is the newest thing of the day, starred or not, as the reference has it."""
    assert (await client.get(BY_DATE)).json() == []
    await make(
        resources,
        row("image", "a.png", f"{ONE} 00:00:00.000", starred=True),
        row("image", "b.png", f"{ONE} 23:59:59.999", category="mask"),
        row("image", "c.png", f"{TWO} 10:00:00.000"),
        row("video", "d.mp4", f"{TWO} 10:00:00.000", starred=True),
        row("image", "e.png", f"{TWO} 11:00:00.000", is_intermediate=True),
        row("image", "f.png", f"{THREE} 11:00:00.000", is_intermediate=True),
    )
    assert (await client.get(BY_DATE)).json() == days(
        {"date": TWO, "image_count": 1, "asset_count": 0, "video_count": 1, "cover_video_name": "d.mp4"},
        {"date": ONE, "image_count": 1, "asset_count": 1, "video_count": 0, "cover_image_name": "b.png"},
    )


async def test_counts_follow_updates_and_deletions(client: httpx.AsyncClient, resources: Resources) -> None:
    await make(resources, row("image", "a.png", f"{ONE} 00:00:00.000"), row("video", "v.mp4", f"{TWO} 00:00:00.000"))
    steps = [
        (update(images).values(image_category="user"), {ONE: (0, 1, 0), TWO: (0, 0, 1)}),
        (update(images).values(starred=True, board_id=None), {ONE: (0, 1, 0), TWO: (0, 0, 1)}),
        (update(images).values(is_intermediate=True), {TWO: (0, 0, 1)}),
        (update(images).values(is_intermediate=False), {ONE: (0, 1, 0), TWO: (0, 0, 1)}),
        (update(videos).values(is_intermediate=True), {ONE: (0, 1, 0)}),
        (delete(videos), {ONE: (0, 1, 0)}),
        (delete(images), {}),
    ]
    for statement, right in steps:
        async with resources.database.write() as connection:
            await connection.execute(statement)
        body = (await client.get(BY_DATE)).json()
        counts = {board["date"]: (board["image_count"], board["asset_count"], board["video_count"]) for board in body}
        assert counts == right, str(statement)


async def test_items_of_a_day_are_ordered_and_filtered(client: httpx.AsyncClient, resources: Resources) -> None:
    await make(
        resources,
        row("image", "a.png", f"{ONE} 01:00:00.000", metadata='{"a": "cat"}'),
        row("image", "b.png", f"{ONE} 02:00:00.000", category="mask"),
        row("video", "c.mp4", f"{ONE} 03:00:00.000"),
        row("image", "d.png", f"{ONE} 04:00:00.000", is_intermediate=True),
        row("image", "e.png", f"{ONE} 00:30:00.000", starred=True),
        row("image", "f.png", f"{TWO} 01:00:00.000"),
    )

    async def names(**query: Any) -> list[str]:
        items = (await client.get(f"{BY_DATE}/{ONE}/item_names", params=query)).json()
        image_names = (await client.get(f"{BY_DATE}/{ONE}/image_names", params=query)).json()
        item_names = [item["name"] for item in items["items"]]
        assert {item["kind"] for item in items["items"]} <= {"image", "video"}
        assert image_names["image_names"] == [name for name in item_names if name.endswith(".png")]
        assert (items["total_count"], image_names["total_count"]) == (len(item_names), len(image_names["image_names"]))
        stars = 1 if "e.png" in item_names and query.get("starred_first", True) else 0
        assert (items["starred_count"], image_names["starred_count"]) == (stars, stars)
        return item_names

    assert await names() == ["e.png", "c.mp4", "b.png", "a.png"]
    assert await names(order_dir="ASC") == ["e.png", "a.png", "b.png", "c.mp4"]
    assert await names(starred_first=False) == ["c.mp4", "b.png", "a.png", "e.png"]
    assert await names(categories=["mask"]) == ["b.png"]
    assert await names(search_term="CAT") == ["a.png"]


@pytest.mark.parametrize("date", ["zzz", "2026-01", "2026-01-01 01", "%00", "' OR 1=1"])
async def test_invalid_dates_give_empty_lists(client: httpx.AsyncClient, resources: Resources, date: str) -> None:
    await make(resources, row("image", "a.png", f"{ONE} 01:00:00.000"))
    for kind, key in (("image_names", "image_names"), ("item_names", "items")):
        answer = await client.get(f"{BY_DATE}/{date}/{kind}")
        assert (answer.status_code, answer.json()) == (200, {key: [], "starred_count": 0, "total_count": 0})


async def test_users_see_only_their_own_days(resources: Resources) -> None:
    await register(resources.database)
    await make(
        resources,
        row("image", "a.png", f"{ONE} 01:00:00.000", user_id="ann"),
        row("video", "b.mp4", f"{ONE} 02:00:00.000", user_id="bob"),
    )
    async with asking(multiuser(resources), virtual_router) as people:
        covers = {
            who: [(item["image_count"], item["video_count"], item["cover_image_name"], item["cover_video_name"]) for item in
                  (await people[who].get(BY_DATE)).json()]
            for who in ("ann", "bob", "root")
        }  # fmt: skip
        assert covers == {
            "ann": [(1, 0, "a.png", None)],
            "bob": [(0, 1, None, "b.mp4")],
            "root": [(1, 1, None, "b.mp4")],
        }
        for who, right in (("ann", ["a.png"]), ("bob", ["b.mp4"]), ("root", ["b.mp4", "a.png"])):
            body = (await people[who].get(f"{BY_DATE}/{ONE}/item_names")).json()
            assert [item["name"] for item in body["items"]] == right


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize("of_one", [True, False])
async def test_the_list_of_days_reads_counts_and_indexes_only(resources: Resources, of_one: bool) -> None:
    statement = virtual.by_date(by_owner=of_one)
    words = str(
        (statement.params(owner="ann") if of_one else statement).compile(compile_kwargs={"literal_binds": True})
    )
    async with resources.database.read() as connection:
        rows = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}")).all()
    query_plan = [record.detail for record in rows]
    assert sum(line.startswith("SEARCH images USING COVERING INDEX ix_images") for line in query_plan) == 2, query_plan
    assert sum(line.startswith("SEARCH videos USING INDEX ix_videos") for line in query_plan) == 2, query_plan
    assert not any("TEMP B-TREE" in line for line in query_plan), query_plan
