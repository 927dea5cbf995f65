"""Videos on boards: membership, what boards say of them, and what becomes of them with their board."""

from typing import Any

import httpx
import pytest

from invokeclone.images import intent_log
from invokeclone.images.events import ImagesDeletedEvent
from invokeclone.kit.resources import Resources
from tests.busy_storage import busy_storage
from tests.images.gallery.conftest import row
from tests.images.videos.conftest import ROUTERS, client, mp4, upload  # noqa: F401  (fixtures)

BOARDS, VIDEOS = "/api/v1/boards", "/api/v1/videos"

assert ROUTERS


@pytest.fixture
def board(client: httpx.AsyncClient):  # noqa: F811
    async def make() -> str:
        return (await client.post(f"{BOARDS}/", params={"board_name": "b"})).json()["board_id"]

    return make


async def test_a_video_is_added_to_and_removed_from_boards(client: httpx.AsyncClient, upload, board) -> None:  # noqa: F811
    first, other = await board(), await board()
    name = (await upload())["video_name"]

    async def add_to_board(board_id: str, video_name: str = name) -> tuple[int, Any]:
        answer = await client.post(f"{VIDEOS}/board", json={"board_id": board_id, "video_name": video_name})
        return answer.status_code, answer.json()

    assert await add_to_board(first) == (200, {"affected_boards": sorted([first, "none"]), "added_videos": [name]})
    assert (await client.get(f"{VIDEOS}/i/{name}")).json()["board_id"] == first
    assert await add_to_board(other) == (200, {"affected_boards": sorted([first, other]), "added_videos": [name]})
    answer = await client.request("DELETE", f"{VIDEOS}/board", json={"video_name": name})
    assert answer.status_code == 200
    assert answer.json() == {"affected_boards": sorted([other, "none"]), "removed_videos": [name]}
    assert (await client.get(f"{VIDEOS}/i/{name}")).json()["board_id"] is None
    assert (await add_to_board("nope"))[0] == 404
    assert (await client.post(f"{VIDEOS}/board", json={"video_name": name})).status_code == 422
    assert (await client.request("DELETE", f"{VIDEOS}/board", json={})).status_code == 422


async def test_unknown_video(client: httpx.AsyncClient, board) -> None:  # noqa: F811
    """The reference answers 500 on adding one; on removing one it says that it is removed, and so it is here."""
    body = {"board_id": await board(), "video_name": "nope.mp4"}
    assert (await client.post(f"{VIDEOS}/board", json=body)).status_code == 404
    answer = await client.request("DELETE", f"{VIDEOS}/board", json={"video_name": "nope.mp4"})
    assert (answer.status_code, answer.json()) == (200, {"affected_boards": ["none"], "removed_videos": ["nope.mp4"]})


async def test_batch_routes_of_6_8_1_add_and_remove_videos(client: httpx.AsyncClient, upload, board) -> None:  # noqa: F811
    """These answered 501 in 6.8.1; here they work in the shape that it published."""
    on = await board()
    names = [(await upload())["video_name"], (await upload())["video_name"]]
    answer = await client.post("/api/v1/board_videos/batch", json={"board_id": on, "video_ids": [*names, "nope.mp4"]})
    result = answer.json()
    assert (answer.status_code, result["affected_boards"]) == (201, sorted([on, "none"]))
    assert sorted(result["added_videos"]) == sorted(names)
    answer = await client.post("/api/v1/board_videos/batch/delete", json={"video_ids": [names[0], "nope.mp4"]})
    assert answer.status_code == 201
    assert answer.json() == {"affected_boards": sorted([on, "none"]), "removed_videos": [names[0]]}
    none = await client.post("/api/v1/board_videos/batch", json={"board_id": "nope", "video_ids": names})
    assert none.status_code == 404
    for path in ("batch", "batch/delete"):
        assert (await client.post(f"/api/v1/board_videos/{path}", json={"board_id": on})).status_code == 422
        many = {"board_id": on, "video_ids": ["x"] * 1001}
        assert (await client.post(f"/api/v1/board_videos/{path}", json=many)).status_code == 422


@pytest.fixture
def records(resources: Resources):
    """Make records of images and videos, without files, on a board."""
    from sqlalchemy import insert

    from invokeclone.tables import images, videos

    async def make(board_id: str, *rows: dict[str, Any]) -> None:
        async with resources.database.write() as connection:
            for values in rows:
                table = images if "image_name" in values else videos
                await connection.execute(insert(table).values(**{**values, "board_id": board_id}))

    return make


EARLY, LATE = "2026-01-01 00:00:00.000", "2026-01-02 00:00:00.000"


@pytest.mark.parametrize(
    ("rows", "cover"),
    [
        ([], (None, None)),
        ([row("image", "a.png", EARLY), row("video", "v.mp4", LATE)], (None, "v.mp4")),
        ([row("image", "a.png", LATE), row("video", "v.mp4", EARLY)], ("a.png", None)),
        ([row("image", "a.png", EARLY, starred=True), row("video", "v.mp4", LATE)], ("a.png", None)),
        ([row("image", "z.png", EARLY), row("video", "a.mp4", EARLY)], (None, "a.mp4")),
        ([row("image", "a.png", EARLY), row("video", "v.mp4", LATE, is_intermediate=True)], ("a.png", None)),
        ([row("video", "v.mp4", EARLY), row("video", "w.mp4", LATE)], (None, "w.mp4")),
    ],
)
async def test_the_cover_is_the_first_gallery_item(
    client: httpx.AsyncClient,  # noqa: F811
    board,
    records,
    rows,
    cover,
) -> None:
    on = await board()
    await records(on, *rows)
    body = (await client.get(f"{BOARDS}/{on}")).json()
    assert (body["cover_image_name"], body["cover_video_name"]) == cover
    listed = (await client.get(f"{BOARDS}/", params={"all": True})).json()
    assert [(item["cover_image_name"], item["cover_video_name"]) for item in listed] == [cover]


async def test_videos_are_counted(client: httpx.AsyncClient, board, records) -> None:  # noqa: F811
    on = await board()
    await records(
        on, row("image", "a.png"), row("video", "v.mp4"), row("video", "w.mp4", category="user"),
        row("video", "x.mp4", is_intermediate=True),
    )  # fmt: skip
    body = (await client.get(f"{BOARDS}/{on}")).json()
    assert (body["image_count"], body["asset_count"], body["video_count"]) == (1, 0, 2)


async def test_deleting_a_board_frees_its_videos(client: httpx.AsyncClient, upload, board, events) -> None:  # noqa: F811
    on = await board()
    name = (await upload(board_id=on))["video_name"]
    result = (await client.delete(f"{BOARDS}/{on}")).json()
    assert (result["deleted_board_videos"], result["deleted_videos"], result["failed_videos"]) == ([name], [], [])
    assert (await client.get(f"{VIDEOS}/i/{name}")).json()["board_id"] is None
    assert events.sent == []


async def test_deleting_a_board_with_its_videos(client, upload, board, resources, events) -> None:  # noqa: F811
    on = await board()
    name, free = (await upload(board_id=on, is_intermediate="true"))["video_name"], (await upload())["video_name"]
    result = (await client.delete(f"{BOARDS}/{on}", params={"include_images": "true"})).json()
    assert (result["deleted_board_videos"], result["deleted_videos"], result["failed_videos"]) == ([], [name], [])
    left = {path.name for path in resources.settings.outputs_path.rglob("*") if path.is_file()}
    assert left == {free, f"{free[:-4]}.webp"}
    assert [event.image_names for event in events.sent if isinstance(event, ImagesDeletedEvent)] == [[name]]


async def test_a_board_is_deleted_while_the_storage_is_busy(client, upload, board, records, resources, events) -> None:  # noqa: F811
    """The events are emitted, and the files are removed when the intent is settled."""
    on = await board()
    name = (await upload(board_id=on, is_intermediate="true"))["video_name"]
    await records(on, row("image", "a.png"))
    with busy_storage():
        answer = await client.delete(f"{BOARDS}/{on}", params={"include_images": "true"})
    assert answer.status_code == 200
    assert (answer.json()["deleted_images"], answer.json()["deleted_videos"]) == (["a.png"], [name])
    deleted = [event.image_names for event in events.sent if isinstance(event, ImagesDeletedEvent)]
    assert sorted(deleted) == sorted([["a.png"], [name]])
    assert len(list(intent_log.folder(resources.settings).glob("*"))) == 1
    await intent_log.settle_all(resources)
    assert list(intent_log.folder(resources.settings).glob("*")) == []
    assert not [path for path in resources.settings.outputs_path.rglob("*") if path.is_file()]
