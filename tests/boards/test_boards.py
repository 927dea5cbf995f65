"""Boards: making, changing, listing, counting, deleting."""

import re

import httpx
import pytest

from invokeclone.boards import store
from invokeclone.images.events import ImagesDeletedEvent

BOARDS = "/api/v1/boards"


async def test_create_returns_the_full_board(client: httpx.AsyncClient) -> None:
    board = (await client.post(f"{BOARDS}/", params={"board_name": "Bä"})).json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", board["created_at"])
    assert board == {
        "board_id": board["board_id"],
        "board_name": "Bä",
        "user_id": "system",
        "created_at": board["created_at"],
        "updated_at": board["created_at"],
        "deleted_at": None,
        "cover_image_name": None,
        "archived": False,
        "board_visibility": "private",
        "cover_video_name": None,
        "image_count": 0,
        "video_count": 0,
        "asset_count": 0,
        "owner_username": None,
        "is_private": False,
    }
    assert (await client.get(f"{BOARDS}/{board['board_id']}")).json() == board
    assert (await client.get(f"{BOARDS}/nope")).status_code == 404


async def test_board_names_may_repeat_but_have_a_length_limit(client: httpx.AsyncClient, board) -> None:
    assert await board("same") != await board("same")
    assert (await client.post(f"{BOARDS}/", params={"board_name": ""})).status_code == 201
    assert (await client.post(f"{BOARDS}/", params={"board_name": "x" * 301})).status_code == 422
    assert (await client.post(f"{BOARDS}/")).status_code == 422


async def test_counts_and_cover(client, board, image) -> None:
    on = await board()
    await image()
    first = await image(on)
    asset = await image(on, "mask")
    await image(on, is_intermediate=True)
    body = (await client.get(f"{BOARDS}/{on}")).json()
    assert (body["image_count"], body["asset_count"], body["cover_image_name"]) == (1, 1, asset)
    await client.post("/api/v1/images/star", json={"image_names": [first]})
    assert (await client.get(f"{BOARDS}/{on}")).json()["cover_image_name"] == first
    listed = (await client.get(f"{BOARDS}/", params={"all": "true"})).json()
    assert [(item["image_count"], item["asset_count"], item["cover_image_name"]) for item in listed] == [(1, 1, first)]


async def test_patch_changes_a_board(client, board, image) -> None:
    on, name = await board(), await image()
    changes = {"board_name": "c", "archived": True, "board_visibility": "shared", "cover_image_name": name}
    answer = await client.patch(f"{BOARDS}/{on}", json=changes)
    changed = answer.json()
    assert answer.status_code == 201
    assert (changed["board_name"], changed["archived"], changed["board_visibility"]) == ("c", True, "shared")
    # The cover that is shown is computed whatever was asked for.
    assert changed["cover_image_name"] is None
    assert (await client.patch(f"{BOARDS}/{on}", json={"board_name": None})).json()["board_name"] == "c"


async def test_all_timestamps_have_the_same_format(client, board) -> None:
    on = await board()
    answers = [await client.get(f"{BOARDS}/{on}"), await client.patch(f"{BOARDS}/{on}", json={"board_name": "c"})]
    answers.append(await client.get(f"{BOARDS}/{on}"))
    for answer in answers:
        for key in ("created_at", "updated_at"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", answer.json()[key]), answer.json()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"other": 1}, 422),
        ({"board_name": "x" * 301}, 422),
        ({"board_visibility": "secret"}, 422),
        ({"cover_image_name": "nope.png"}, 404),
    ],
)
async def test_invalid_changes_are_refused(client, board, changes, status: int) -> None:
    on = await board()
    assert (await client.patch(f"{BOARDS}/{on}", json=changes)).status_code == status
    assert (await client.patch(f"{BOARDS}/nope", json={"board_name": "x"})).status_code == 404


async def test_list_is_ordered_and_filtered(client, board) -> None:
    board_ids = [await board(name) for name in ("b", "A", "c")]
    archived = await board("d")
    await client.patch(f"{BOARDS}/{archived}", json={"archived": True})

    async def list_ids(**query: object) -> list[str]:
        answer = await client.get(f"{BOARDS}/", params={"all": "true", **query})
        return [item["board_id"] for item in answer.json()]

    assert await list_ids(direction="ASC") == sorted(board_ids, key=board_ids.index)
    assert await list_ids() == board_ids[::-1]
    assert await list_ids(order_by="board_name", direction="ASC") == [board_ids[1], board_ids[0], board_ids[2]]
    assert await list_ids(order_by="board_name") == [board_ids[2], board_ids[0], board_ids[1]]
    assert await list_ids(include_archived="true") == [archived, *board_ids[::-1]]


async def test_pages_include_the_total_count(client, board) -> None:
    """The reference tells the number on this page, with which nobody can find the last page."""
    board_ids = [await board() for _ in range(5)]
    page = (await client.get(f"{BOARDS}/", params={"offset": 1, "limit": 2})).json()
    assert (page["offset"], page["limit"], page["total"]) == (1, 2, 5)
    assert [item["board_id"] for item in page["items"]] == board_ids[::-1][1:3]
    await client.patch(f"{BOARDS}/{board_ids[0]}", json={"archived": True})
    assert (await client.get(f"{BOARDS}/", params={"offset": 0, "limit": 9})).json()["total"] == 4


async def test_lists_include_the_owner_for_admins(client, board) -> None:
    await board()
    assert (await client.get(f"{BOARDS}/", params={"all": "true"})).json()[0]["owner_username"] == "System"
    page = (await client.get(f"{BOARDS}/", params={"offset": 0, "limit": 1})).json()
    assert page["items"][0]["owner_username"] == "System"


@pytest.mark.parametrize(
    "query", [{}, {"offset": 0}, {"limit": 1}, {"all": "false"}, {"offset": -1, "limit": 1}, {"offset": 0, "limit": -1}]
)
async def test_list_requires_all_or_a_page(client, query) -> None:
    assert (await client.get(f"{BOARDS}/", params=query)).status_code == 400


async def test_unknown_query_values_are_refused(client) -> None:
    for query in ({"order_by": "x"}, {"direction": "x"}):
        assert (await client.get(f"{BOARDS}/", params={"all": "true", **query})).status_code == 422


async def test_image_names_of_a_board(client, board, image) -> None:
    on, free = await board(), await image()
    general, mask, step = await image(on), await image(on, "mask"), await image(on, is_intermediate=True)

    async def names(board_id: str, **query: object) -> set[str]:
        return set((await client.get(f"{BOARDS}/{board_id}/image_names", params=query)).json())

    assert await names(on) == {general, mask, step}
    assert await names(on, categories=["mask"]) == {mask}
    assert await names(on, is_intermediate="false") == {general, mask}
    assert await names("none") == {free}
    assert (await client.get(f"{BOARDS}/nope/image_names")).status_code == 404


async def test_deleting_a_board_frees_its_images(client, board, image, events) -> None:
    on, other = await board(), await board()
    names, on_other = [await image(on), await image(on)], await image(other)
    result = (await client.delete(f"{BOARDS}/{on}")).json()
    assert sorted(result.pop("deleted_board_images")) == sorted(names)
    empty = ["deleted_images", "deleted_board_videos", "deleted_videos", "failed_images", "failed_videos"]
    assert result == {"board_id": on, **{key: [] for key in empty}}
    assert (await client.get(f"/api/v1/images/i/{names[0]}")).json()["board_id"] is None
    assert (await client.get(f"/api/v1/images/i/{on_other}")).json()["board_id"] == other
    assert events.sent == []
    assert (await client.delete(f"{BOARDS}/{on}")).status_code == 404


async def test_deleting_a_board_with_its_images(client, board, image, resources, events) -> None:
    on = await board()
    names, free = [await image(on), await image(on, is_intermediate=True)], await image()
    result = (await client.delete(f"{BOARDS}/{on}", params={"include_images": "true"})).json()
    assert sorted(result["deleted_images"]) == sorted(names)
    assert result["deleted_board_images"] == []
    left = [path.name for path in resources.settings.outputs_path.rglob("*.png")]
    assert left == [free]
    assert [sorted(event.image_names) for event in events.sent if isinstance(event, ImagesDeletedEvent)] == [
        sorted(names)
    ]
    assert (await client.delete(f"{BOARDS}/nope", params={"include_images": "true"})).status_code == 404


@pytest.mark.sqlite("reads SQLite's plan of a query")
async def test_counts_and_covers_use_the_index(resources) -> None:
    text = str(store._boards(owners=True).compile(compile_kwargs={"literal_binds": True}))
    async with resources.database.read() as connection:
        rows = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")).all()
    query_plan = [row[3] for row in rows]
    assert sum("SEARCH images USING COVERING INDEX ix_images_board" in line for line in query_plan) == 1, query_plan
    assert sum("SEARCH image_counts USING PRIMARY KEY (board_id=?)" in line for line in query_plan) == 2, query_plan
    assert not any("TEMP B-TREE" in line for line in query_plan)
