"""Who may see and change videos, and what galleries show to whom, where users sign in."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from invokeclone.images.videos import uploads
from invokeclone.kit.resources import Resources
from tests.images.people import asking, multiuser, register
from tests.images.videos.conftest import ROUTERS

VIDEOS, BOARDS, GALLERY = "/api/v1/videos", "/api/v1/boards", "/api/v1/gallery"
Clients = dict[str, httpx.AsyncClient]
Make = Callable[..., Awaitable[str]]


@pytest.fixture
async def people(resources: Resources) -> AsyncIterator[Clients]:
    await register(resources.database)
    async with asking(multiuser(resources), *ROUTERS) as clients:
        yield clients


@pytest.fixture
def board(people: Clients) -> Make:
    async def make(who: str, visibility: str = "private") -> str:
        answer = await people[who].post(f"{BOARDS}/", params={"board_name": f"{who}'s"})
        board_id = answer.json()["board_id"]
        await people[who].patch(f"{BOARDS}/{board_id}", json={"board_visibility": visibility})
        return board_id

    return make


@pytest.fixture
def video(people: Clients, mp4: bytes, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Upload a video; what is in it does not matter here, so it is looked into once."""
    look = uploads.inspect
    infos: list[uploads.VideoInfo] = []

    async def once(path) -> uploads.VideoInfo:
        if not infos:
            infos.append(await look(path))
        return infos[0]

    monkeypatch.setattr(uploads, "inspect", once)

    async def make(who: str, board_id: str | None = None, status: int = 201) -> str:
        query = {"video_category": "general", "is_intermediate": "false"}
        answer = await people[who].post(
            f"{VIDEOS}/upload",
            params=query if board_id is None else {**query, "board_id": board_id},
            files={"file": ("v.mp4", mp4, "video/mp4")},
        )
        assert answer.status_code == status, answer.text
        return answer.json().get("video_name", "")

    return make


PARTS = ["", "/metadata", "/workflow", "/urls", "/full", "/thumbnail"]


async def seen(client: httpx.AsyncClient, name: str) -> set[int]:
    statuses = {(await client.get(f"{VIDEOS}/i/{name}{part}")).status_code for part in PARTS}
    return statuses | {(await client.head(f"{VIDEOS}/i/{name}/full")).status_code}


async def names(client: httpx.AsyncClient, **query: object) -> set[str]:
    """Return what all lists say; they say the same."""
    name_sets = []
    for path, key in (
        (f"{VIDEOS}/names", "video_names"),
        (f"{VIDEOS}/ids", "video_ids"),
        (f"{GALLERY}/item_names", "item_names"),
    ):
        answer = await client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        name_sets.append(set(answer.json()[key]))
    page = (await client.get(f"{GALLERY}/items/", params=query)).json()
    name_sets.append({item["name"] for item in page["items"]})
    assert page["total"] == len(page["items"])
    assert all(item == name_sets[0] for item in name_sets)
    return name_sets[0]


async def test_reading(people: Clients, video: Make, board: Make) -> None:
    unboarded = await video("ann")
    assert [await seen(people[who], unboarded) for who in ("ann", "root", "bob")] == [{200}, {200}, {403}]
    for visibility, status in (("private", 403), ("shared", 200), ("public", 200)):
        name = await video("ann", await board("ann", visibility))
        assert await seen(people["bob"], name) == {status}
        items = (await people["bob"].post(f"{VIDEOS}/videos_by_ids", json={"video_ids": [unboarded, name]})).json()
        assert [item["video_name"] for item in items] == ([name] if status == 200 else [])


async def test_files_are_not_cached_by_browsers(people: Clients, video: Make) -> None:
    name = await video("ann")
    for part in ("full", "thumbnail"):
        answer = await people["ann"].get(f"{VIDEOS}/i/{name}/{part}")
        assert answer.headers["cache-control"] == "private, no-store"
    answer = await people["ann"].get(f"{VIDEOS}/i/{name}/full", headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.headers["cache-control"]) == (206, "private, no-store")


async def test_lists_and_galleries(people: Clients, video: Make, board: Make) -> None:
    private, public = await board("ann"), await board("ann", "public")
    free, hidden, open_ = await video("ann"), await video("ann", private), await video("ann", public)
    other, guest = await video("bob"), await video("bob", public)
    assert await names(people["ann"]) == {free, hidden, open_}
    assert await names(people["bob"]) == {other, guest}
    assert await names(people["root"]) == {free, hidden, open_, other, guest}
    assert await names(people["ann"], board_id="none") == {free}
    assert await names(people["root"], board_id="none") == {free, other}
    assert await names(people["bob"], board_id=public) == {open_, guest}
    for path in (
        f"{VIDEOS}/",
        f"{VIDEOS}/names",
        f"{GALLERY}/items/",
        f"{GALLERY}/item_names",
        f"{GALLERY}/items/names",
    ):
        assert (await people["bob"].get(path, params={"board_id": private})).status_code == 403
        assert (await people["bob"].get(path, params={"board_id": "nope"})).status_code == 404


async def test_changing(people: Clients, video: Make, board: Make) -> None:
    """The owner of a board may change what others left on it, anybody what is on a public one."""
    public, shared = await board("ann", "public"), await board("ann", "shared")
    cases = [
        (await video("ann"), "bob", False),
        (await video("ann"), "root", True),
        (await video("ann", shared), "bob", False),
        (await video("ann", public), "bob", True),
        (await video("bob", public), "ann", True),
    ]
    for name, who, allowed in cases:
        answer = await people[who].patch(f"{VIDEOS}/i/{name}", json={"starred": True})
        assert answer.status_code == (200 if allowed else 403)
        for path, key in (("unstar", "unstarred_videos"), ("star", "starred_videos")):
            result = (await people[who].post(f"{VIDEOS}/{path}", json={"video_names": [name]})).json()
            assert (result[key], result["failed_videos"]) == (([name], []) if allowed else ([], [name]))


async def test_deleting(people: Clients, video: Make, board: Make) -> None:
    """Who is no admin is told 403 also of a video that does not exist, as the reference does."""
    private, public = await video("ann"), await video("ann", await board("ann", "public"))
    assert (await people["bob"].delete(f"{VIDEOS}/i/{private}")).status_code == 403
    assert (await people["bob"].delete(f"{VIDEOS}/i/nope.mp4")).status_code == 403
    assert (await people["root"].delete(f"{VIDEOS}/i/nope.mp4")).status_code == 404
    result = (await people["bob"].post(f"{VIDEOS}/delete", json={"video_names": [private, public]})).json()
    assert (result["deleted_videos"], result["failed_videos"]) == ([public], [private])
    bobs = await video("bob")
    assert (await people["bob"].delete(f"{VIDEOS}/uncategorized")).json()["deleted_videos"] == [bobs]
    assert (await people["ann"].get(f"{VIDEOS}/i/{private}")).status_code == 200
    assert (await people["root"].delete(f"{VIDEOS}/uncategorized")).json()["deleted_videos"] == [private]


async def test_boards(people: Clients, video: Make, board: Make) -> None:
    private, shared, public = [await board("ann", visibility) for visibility in ("private", "shared", "public")]
    for board_id, status in ((private, 403), (shared, 403), (public, 201)):
        await video("bob", board_id, status)
        answer = await people["bob"].post(
            f"{VIDEOS}/board", json={"board_id": board_id, "video_name": await video("bob")}
        )
        assert answer.status_code == (200 if status == 201 else 403)
    on_public, unboarded = await video("ann", public), await video("ann")
    bobs_board = await board("bob")
    # What is another's isn't moved, wherever it is; off a public board anybody may take it.
    for name in (on_public, unboarded):
        answer = await people["bob"].post(f"{VIDEOS}/board", json={"board_id": bobs_board, "video_name": name})
        assert answer.status_code == 403
        batch = await people["bob"].post(
            "/api/v1/board_videos/batch", json={"board_id": bobs_board, "video_ids": [name]}
        )
        assert (batch.status_code, batch.json()["added_videos"]) == (201, [])
    answer = await people["bob"].request("DELETE", f"{VIDEOS}/board", json={"video_name": unboarded})
    assert answer.status_code == 403
    removal = await people["bob"].post("/api/v1/board_videos/batch/delete", json={"video_ids": [unboarded, on_public]})
    assert removal.json()["removed_videos"] == [on_public]
