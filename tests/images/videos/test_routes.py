"""Routes of videos: records, lists, files and their ranges, stars, deletion, and the names 6.8.1 has for them."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from invokeclone.images import responses
from invokeclone.images.events import ImagesDeletedEvent
from invokeclone.images.videos import uploads
from invokeclone.kit.resources import Resources

VIDEOS = "/api/v1/videos"


async def test_metadata_workflow_and_addresses(client: httpx.AsyncClient, upload, resources: Resources) -> None:
    name = (await upload(form={"metadata": '{"positive_prompt": "a cat"}'}))["video_name"]
    bare = (await upload())["video_name"]
    assert (await client.get(f"{VIDEOS}/i/{name}/metadata")).json() == {"positive_prompt": "a cat"}
    assert (await client.get(f"{VIDEOS}/i/{bare}/metadata")).json() is None
    for video_name in (name, bare):
        assert (await client.get(f"{VIDEOS}/i/{video_name}/workflow")).json() == {"workflow": None, "graph": None}
    sidecar = resources.settings.outputs_path / "videos" / "sidecars" / f"{name[:-4]}.json"
    sidecar.write_text(json.dumps({"invokeai_workflow": '{"a": 1}', "invokeai_graph": '{"b": 2}'}))
    body = (await client.get(f"{VIDEOS}/i/{name}/workflow")).json()
    assert body == {"workflow": '{"a": 1}', "graph": '{"b": 2}'}
    assert (await client.get(f"{VIDEOS}/i/{name}/urls")).json() == {
        "video_name": name,
        "video_url": f"api/v1/videos/i/{name}/full",
        "thumbnail_url": f"api/v1/videos/i/{name}/thumbnail",
    }
    assert (await client.get(f"{VIDEOS}/i/nope.mp4/urls")).status_code == 200  # made from the name, as clients know it


@pytest.mark.parametrize("part", ["", "/metadata", "/workflow", "/full", "/thumbnail"])
async def test_unknown_videos(client: httpx.AsyncClient, part: str) -> None:
    for name in ("nope.mp4", "..%2f..%2fetc%2fpasswd", "%00"):
        assert (await client.get(f"{VIDEOS}/i/{name}{part}")).status_code == 404


async def test_change(client: httpx.AsyncClient, upload) -> None:
    """An unknown video is a 400 here, as clients know it."""
    name = (await upload())["video_name"]
    changes = {"video_category": "user", "session_id": "s", "is_intermediate": True, "starred": True, "other": 1}
    changed = (await client.patch(f"{VIDEOS}/i/{name}", json=changes)).json()
    assert (changed["video_category"], changed["session_id"]) == ("user", "s")
    assert (changed["is_intermediate"], changed["starred"]) == (True, True)
    assert (await client.patch(f"{VIDEOS}/i/{name}", json={"starred": None})).json()["starred"] is True
    for wrong in ({"starred": "yes"}, {"video_category": "x"}, {"session_id": 1}, {"is_intermediate": 1}):
        assert (await client.patch(f"{VIDEOS}/i/{name}", json=wrong)).status_code == 422
    assert (await client.patch(f"{VIDEOS}/i/nope.mp4", json={"starred": True})).status_code == 400


async def test_the_whole_file(client: httpx.AsyncClient, upload, mp4: bytes) -> None:
    video = await upload()
    name, url = video["video_name"], f"/{video['video_url']}"
    answer = await client.get(url)
    assert (answer.status_code, answer.content) == (200, mp4)
    expected_headers = {
        "content-type": "video/mp4",
        "content-disposition": f'inline; filename="{name}"',
        "cache-control": "max-age=31536000",
        "accept-ranges": "bytes",
        "content-length": str(len(mp4)),
    }
    assert {key: answer.headers[key] for key in expected_headers} == expected_headers
    head = await client.head(url, headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.content) == (200, b"")
    assert {key: head.headers[key] for key in expected_headers} == expected_headers
    assert (await client.head(f"{VIDEOS}/i/nope.mp4/full")).status_code == 404
    not_modified = await client.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert (not_modified.status_code, not_modified.content) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("0-9", 0, 10), ("10-10", 10, 11), ("1800-", 1800, None), ("-7", -7, None), ("5-999999999999", 5, None), ("-99999", 0, None)],
)  # fmt: skip
async def test_a_range(client: httpx.AsyncClient, upload, mp4: bytes, asked: str, start: int, end: int | None) -> None:
    url = f"/{(await upload())['video_url']}"
    answer = await client.get(url, headers={"Range": f"bytes={asked}"})
    right = mp4[start:end]
    first = start if start >= 0 else len(mp4) + start
    assert (answer.status_code, answer.content) == (206, right)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(right) - 1}/{len(mp4)}"
    assert answer.headers["content-length"] == str(len(right))
    assert (answer.headers["accept-ranges"], answer.headers["cache-control"]) == ("bytes", "max-age=31536000")


async def test_ranges_are_sent_in_parts(client: httpx.AsyncClient, upload, mp4: bytes, monkeypatch) -> None:
    assert responses.MAX_RANGE_SIZE == 1024 * 1024
    monkeypatch.setattr(responses, "MAX_RANGE_SIZE", 500)
    url = f"/{(await upload())['video_url']}"
    received = b""
    while len(received) < len(mp4):
        answer = await client.get(url, headers={"Range": f"bytes={len(received)}-"})
        assert answer.status_code == 206
        assert 0 < len(answer.content) <= 500
        received += answer.content
    assert received == mp4


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=5-2", "bytes=-", "bytes=-0", "bytes=99999-", "bytes=0-1,3-4", "bytes=a-b", "bytes", "items=0-1", "bytes=0-1 ",
        "bytes=1-" + "9" * 5000, "bytes=٣-", "",
    ],
)  # fmt: skip
async def test_unsatisfiable_ranges_are_416(client: httpx.AsyncClient, upload, mp4: bytes, asked: str) -> None:
    url = f"/{(await upload())['video_url']}"
    answer = await client.get(url, headers={"Range": asked.encode()})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(mp4)}"
    assert "range" in answer.json()["detail"]


async def test_if_range_mismatch_returns_the_whole_file(client: httpx.AsyncClient, upload, mp4: bytes) -> None:
    url = f"/{(await upload())['video_url']}"
    tag = (await client.get(url)).headers["etag"]
    same = await client.get(url, headers={"Range": "bytes=0-3", "If-Range": tag})
    other = await client.get(url, headers={"Range": "bytes=0-3", "If-Range": '"other"'})
    assert (same.status_code, same.content) == (206, mp4[:4])
    assert (other.status_code, other.content) == (200, mp4)


async def test_a_decoder_that_was_killed_is_tried_again(
    client: httpx.AsyncClient, upload, resources: Resources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = await upload()
    (resources.settings.outputs_path / "videos" / "thumbnails" / f"{record['video_name'][:-4]}.webp").unlink()
    program = tmp_path / "decoder"
    program.write_text("#!/bin/sh\nkill -KILL $$\n")
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(uploads.sys, "executable", str(program))
        assert (await client.get(f"/{record['thumbnail_url']}")).status_code == 415
    assert (await client.get(f"/{record['thumbnail_url']}")).status_code == 200


async def test_a_missing_thumbnail_is_regenerated(client: httpx.AsyncClient, upload, resources: Resources) -> None:
    video = await upload()
    url = f"/{video['thumbnail_url']}"
    first = await client.get(url)
    folder = resources.settings.outputs_path / "videos"
    small = folder / "thumbnails" / f"{video['video_name'][:-4]}.webp"
    small.unlink()
    again = await client.get(url)
    assert (again.status_code, again.content) == (200, first.content)
    assert (again.headers["content-type"], again.headers["cache-control"]) == ("image/webp", "max-age=31536000")
    assert small.read_bytes() == first.content
    small.unlink()
    (folder / video["video_name"]).unlink()
    assert (await client.get(url)).status_code == 404
    for headers in ({}, {"Range": "bytes=0-1"}):
        assert (await client.get(f"/{video['video_url']}", headers=headers)).status_code == 404


async def test_lists(client: httpx.AsyncClient, upload) -> None:
    first = (await upload(form={"metadata": '{"a": "Cat"}'}))["video_name"]
    second = (await upload(video_category="user"))["video_name"]
    step = (await upload(is_intermediate="true"))["video_name"]
    await client.post(f"{VIDEOS}/star", json={"video_names": [first]})

    async def list_names(**query: Any) -> list[str]:
        page = (await client.get(f"{VIDEOS}/", params=query)).json()
        names = (await client.get(f"{VIDEOS}/names", params=query)).json()
        ids = (await client.get(f"{VIDEOS}/ids", params=query)).json()
        page_names = [item["video_name"] for item in page["items"]]
        assert names["video_names"] == page_names
        assert (page["total"], names["total_count"]) == (len(page_names), len(page_names))
        if not {"video_origin", "categories"} & query.keys():
            assert ids == {
                "video_ids": page_names,
                "starred_count": names["starred_count"],
                "total_count": len(page_names),
            }
        return page_names

    assert await list_names() == [first, step, second]
    assert await list_names(starred_first="false", order_dir="ASC") == [first, second, step]
    assert await list_names(is_intermediate="true") == [step]
    assert await list_names(categories=["user", "mask"]) == [second]
    assert await list_names(search_term="cat") == [first]
    assert await list_names(video_origin="internal") == []
    assert await list_names(board_id="none") == [first, step, second]
    assert await list_names(board_id="unknown") == []
    assert (await client.get(f"{VIDEOS}/names")).json()["starred_count"] == 1
    page = (await client.get(f"{VIDEOS}/", params={"limit": 0})).json()
    assert page == {"limit": 0, "offset": 0, "total": 3, "items": []}
    page = (await client.get(f"{VIDEOS}/", params={"limit": 1, "offset": 2})).json()
    assert [item["video_name"] for item in page["items"]] == [second]
    assert (await client.get(f"{VIDEOS}/", params={"limit": 1001})).status_code == 422
    gallery_items = (await client.get("/api/v1/gallery/items/")).json()["items"]
    assert [(item["kind"], item["name"]) for item in gallery_items] == [
        ("video", name) for name in (first, step, second)
    ]


async def test_videos_are_not_listed_as_images(client: httpx.AsyncClient, upload) -> None:
    name = (await upload())["video_name"]
    assert (await client.get(f"/api/v1/images/i/{name}")).status_code == 404
    assert (await client.get("/api/v1/images/names")).json()["image_names"] == []


async def test_videos_by_ids_route_of_6_8_1(client: httpx.AsyncClient, upload) -> None:
    """Its `/videos/videos_by_ids` answered 501; here it works, and says both what 6.8.1 and what 6.14.2 call a name."""
    videos = [await upload(), await upload()]
    names = [video["video_name"] for video in videos]
    video_ids = [names[1], "nope.mp4", names[0]]
    answer = (await client.post(f"{VIDEOS}/videos_by_ids", json={"video_ids": video_ids})).json()
    assert answer == [{**video, "video_id": video["video_name"]} for video in videos[::-1]]
    assert (await client.post(f"{VIDEOS}/videos_by_ids", json={"video_ids": ["x"] * 1001})).status_code == 422


@pytest.mark.parametrize("key", ["video_names", "video_ids"])
async def test_stars(client: httpx.AsyncClient, upload, key: str) -> None:
    """6.8.1 says `video_ids`. Names of nothing are among the failed, as the reference has it for videos."""
    name = (await upload())["video_name"]
    answer = await client.post(f"{VIDEOS}/star", json={key: [name, "nope.mp4", name]})
    assert answer.json() == {"affected_boards": ["none"], "starred_videos": [name], "failed_videos": ["nope.mp4"]}
    assert (await client.get(f"{VIDEOS}/i/{name}")).json()["starred"] is True
    answer = await client.post(f"{VIDEOS}/unstar", json={key: [name]})
    assert answer.json() == {"affected_boards": ["none"], "unstarred_videos": [name], "failed_videos": []}
    assert (await client.get(f"{VIDEOS}/i/{name}")).json()["starred"] is False


@pytest.mark.parametrize("path", ["star", "unstar", "delete"])
async def test_invalid_batches_are_refused(client: httpx.AsyncClient, path: str) -> None:
    for body in ({}, {"video_names": ["x"] * 1001}, {"video_names": ["x" * 256]}, {"video_names": "x"}, []):
        assert (await client.post(f"{VIDEOS}/{path}", json=body)).status_code == 422


def files(resources: Resources) -> set[str]:
    return {path.name for path in (resources.settings.outputs_path / "videos").rglob("*") if path.is_file()}


async def test_deletion(client: httpx.AsyncClient, upload, resources: Resources, events) -> None:
    first, second, third = [(await upload(form={"metadata": "{}"}))["video_name"] for _ in range(3)]
    assert len(files(resources)) == 9
    answer = await client.delete(f"{VIDEOS}/i/{first}")
    assert answer.json() == {"affected_boards": ["none"], "deleted_videos": [first], "failed_videos": []}
    assert (await client.get(f"{VIDEOS}/i/{first}")).status_code == 404
    assert (await client.delete(f"{VIDEOS}/i/{first}")).status_code == 404
    answer = await client.post(f"{VIDEOS}/delete", json={"video_names": [second, "nope.mp4"]})
    assert answer.json() == {"affected_boards": ["none"], "deleted_videos": [second], "failed_videos": ["nope.mp4"]}
    assert files(resources) == {third, f"{third[:-4]}.webp", f"{third[:-4]}.json"}
    deleted_names = [event.image_names for event in events.sent if isinstance(event, ImagesDeletedEvent)]
    assert deleted_names == [[first], [second]]


async def test_deleting_a_video_that_is_on_no_board(client: httpx.AsyncClient, upload) -> None:
    board_id = (await client.post("/api/v1/boards/", params={"board_name": "b"})).json()["board_id"]
    on_board = (await upload(board_id=board_id))["video_name"]
    free = [(await upload())["video_name"], (await upload(is_intermediate="true"))["video_name"]]
    answer = (await client.delete(f"{VIDEOS}/uncategorized")).json()
    assert sorted(answer.pop("deleted_videos")) == sorted(free)
    assert answer == {"affected_boards": ["none"], "failed_videos": []}
    assert (await client.get(f"{VIDEOS}/names")).json()["video_names"] == [on_board]
    answer = (await client.delete(f"{VIDEOS}/uncategorized")).json()
    assert answer == {"affected_boards": [], "deleted_videos": [], "failed_videos": []}
