"""Uploading videos: what is kept, what is refused and when, and that nothing is left of what is refused."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect

from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.errors import UploadInterrupted
from invokeclone.images.videos import api, service, upload_form, uploads
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from tests.applications import decode_image
from tests.images.people import asking, multiuser, register
from tests.images.videos.conftest import ROUTERS, encode_video

UPLOAD = "/api/v1/videos/upload"
ASKED = {"video_category": "general", "is_intermediate": "false"}


def left(resources: Resources) -> list[str]:
    folder = resources.settings.outputs_path / "videos"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_upload_returns_the_full_video(
    client: httpx.AsyncClient, upload, resources: Resources, mp4: bytes
) -> None:
    answer = await client.post(
        UPLOAD,
        params={**ASKED, "session_id": "s"},
        files={"file": ("v.mp4", mp4, "video/mp4")},
        data={"metadata": '{"a": "é"}'},
    )
    video = answer.json()
    name = video["video_name"]
    assert answer.status_code == 201
    assert answer.headers["location"] == video["video_url"] == f"api/v1/videos/i/{name}/full"
    assert video == {
        "video_name": name, "video_url": video["video_url"], "thumbnail_url": f"api/v1/videos/i/{name}/thumbnail",
        "video_origin": "external", "video_category": "general", "width": 64, "height": 48, "duration": 1.5, "fps": 8.0,
        "created_at": video["created_at"], "updated_at": video["created_at"], "deleted_at": None,
        "is_intermediate": False, "session_id": "s", "node_id": None, "starred": False, "has_workflow": False,
        "video_subfolder": "", "board_id": None,
    }  # fmt: skip
    assert (await client.get(f"/api/v1/videos/i/{name}")).json() == video
    stem = name.removesuffix(".mp4")
    assert left(resources) == sorted([name, f"sidecars/{stem}.json", f"thumbnails/{stem}.webp"])
    folder = resources.settings.outputs_path / "videos"
    assert (folder / name).read_bytes() == mp4
    assert json.loads((folder / "sidecars" / f"{stem}.json").read_text()) == {"invokeai_metadata": '{"a": "é"}'}
    small = decode_image((folder / "thumbnails" / f"{stem}.webp").read_bytes())
    assert (small.size, small.format) == ((64, 48), "WEBP")
    red, green, blue = small.convert("RGB").getpixel((30, 20))
    assert red > 180
    assert max(green, blue) < 60


async def test_thumbnails_show_the_first_frame_scaled_down(client: httpx.AsyncClient, upload) -> None:
    video = await upload(encode_video((640, 200), frames=1))
    small = decode_image((await client.get(f"/{video['thumbnail_url']}")).content)
    assert small.size == (256, 80)


@pytest.mark.parametrize(
    ("name", "content_type"), [("v.mp4", "application/octet-stream"), ("clip", "video/mp4"), ("V.MP4", "")]
)
async def test_content_type_or_file_name_suffices(upload, name: str, content_type: str) -> None:
    await upload(name=name, content_type=content_type)


async def test_files_other_than_h264_mp4_are_refused(upload, resources: Resources, mp4: bytes) -> None:
    damaged, unknown = mp4.replace(b"moov", b"xxxx"), mp4.replace(b"avc1", b"zzzz")
    await upload(name="v.mov", content_type="video/quicktime", status=415)
    for data in (
        b"",
        b"short",
        b"x" * 4000,
        encode_video(container="mov"),
        encode_video(codec="mpeg4"),
        damaged,
        unknown,
        mp4[:300],
    ):
        await upload(data, status=415)
    assert left(resources) == []


async def test_a_decoder_crash_fails_only_the_upload(upload, resources, monkeypatch, tmp_path: Path) -> None:
    """FFmpeg runs in a process of its own: its death is an answer, not the server's end."""
    for script, status in (("kill -SEGV $$", 415), ("exec sleep 60", 415), ("echo broken >&2; exit 1", 500)):
        program = tmp_path / "decoder"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(uploads.sys, "executable", str(program))
        monkeypatch.setattr(uploads, "PROBE_TIMEOUT_S", 0.3 if "sleep" in script else 60)
        await upload(status=status)
        assert left(resources) == []


@pytest.mark.parametrize("text", ["[]", "x", '"a"', "{", "null", "NaN"])
async def test_metadata_must_be_an_object(upload, resources: Resources, text: str) -> None:
    await upload(form={"metadata": text}, status=422)
    assert left(resources) == []


async def test_size_limits(upload, resources: Resources, monkeypatch) -> None:
    await upload(form={"metadata": json.dumps({"a": "x" * upload_form.METADATA_LIMIT})}, status=413)
    monkeypatch.setattr(service, "MIB", 1000)
    resources.settings = resources.settings.model_copy(update={"limits": Limits(video_mib=1)})
    answer = await upload(status=413)
    assert "limits.video_mib" in answer["detail"]
    assert left(resources) == []


BOUNDARY = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "application/json"}, b"{}"),
        ({}, b""),
        ({"content-type": "multipart/form-data"}, b""),
        (BOUNDARY, b""),
        (BOUNDARY, b"no form at all"),
        (BOUNDARY, b"--b\r\n"),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{}\r\n--b--\r\n'),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\ncut off'),
        (BOUNDARY, b"--b\r\nContent-Disposition: " + b"x" * 20_000 + b"\r\n\r\nx\r\n--b--\r\n"),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\nx\r\n' * 40 + b"--b--\r\n"),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\nx\r\n' * 2 + b"--b--\r\n"),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n\xff\r\n--b--\r\n'),
    ],
)  # fmt: skip
async def test_malformed_forms_are_refused(client: httpx.AsyncClient, resources, headers, body: bytes) -> None:
    answer = await client.post(UPLOAD, params=ASKED, headers=headers, content=body)
    assert answer.status_code == 422, answer.text
    assert left(resources) == []


@pytest.mark.parametrize("query", [{}, {"video_category": "x", "is_intermediate": "false"}, {"video_category": "user"}])
async def test_missing_parameters(client: httpx.AsyncClient, query) -> None:
    assert (await client.post(UPLOAD, params=query)).status_code == 422


async def test_boards(client: httpx.AsyncClient, upload) -> None:
    board_id = (await client.post("/api/v1/boards/", params={"board_name": "b"})).json()["board_id"]
    assert (await upload(board_id=board_id))["board_id"] == board_id
    await upload(board_id="nope", status=404)


async def test_concurrent_uploads_are_limited_before_reading_the_body(resources: Resources, mp4: bytes) -> None:
    """The reference's limits; who is refused has sent nothing yet, and is told when to try again."""
    going = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n'
        await going.wait()
        yield mp4 + b"\r\n--b--\r\n"

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    await register(resources.database)
    async with asking(multiuser(resources), *ROUTERS) as people:

        def send(who: str, body) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(people[who].post(UPLOAD, params=ASKED, headers=BOUNDARY, content=body()))

        first = send("ann", slow)
        await until("ann")
        again = await send("ann", unread)
        assert (again.status_code, again.headers["retry-after"]) == (429, "5")
        second = send("bob", slow)
        await until("bob")
        third = await send("root", unread)
        assert (third.status_code, third.headers["retry-after"]) == (429, "5")
        going.set()
        assert [(await task).status_code for task in (first, second)] == [201, 201]
        # The places are free again, also after what went wrong.
        assert (await send("ann", broken)).status_code == 422
        assert (await send("ann", slow)).status_code == 201


async def broken() -> AsyncIterator[bytes]:
    yield b"no form"


async def until(user_id: str) -> None:
    """Wait until the user's upload has its place."""
    while user_id not in service._UPLOADING.get():
        await asyncio.sleep(0.001)


async def test_a_disconnected_client_leaves_no_files(resources: Resources, mp4: bytes) -> None:
    async def cut_off() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n' + mp4
        raise ClientDisconnect

    class Request:
        stream = staticmethod(cut_off)

    with pytest.raises(UploadInterrupted):
        await service.upload(
            resources,
            api._body(Request),
            BOUNDARY["content-type"],
            category=ImageCategory.GENERAL,
            is_intermediate=False,
        )
    assert left(resources) == []


async def test_files_are_removed_when_the_record_cannot_be_saved(resources: Resources, mp4: bytes) -> None:
    class Broken(RuntimeError):
        pass

    failures: list[int] = []

    class Failing:
        read = resources.database.read

        def write(self):
            if failures:
                return resources.database.write()
            failures.append(len(left(resources)))
            raise Broken

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n' + mp4 + b"\r\n--b--\r\n"

    with pytest.raises(Broken):
        await service.upload(
            Resources(resources.settings, Failing(), resources.events),
            body(),
            BOUNDARY["content-type"],
            category=ImageCategory.GENERAL,
            is_intermediate=False,
        )
    assert failures == [2]
    assert left(resources) == []


async def test_leftover_uploads_are_removed_after_a_day(upload, resources: Resources) -> None:
    folder = resources.settings.outputs_path / "videos" / ".uploads"
    folder.mkdir(parents=True)
    for name, age in (("old.part", 2 * 24 * 3600), ("new.part", 60)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    await upload()
    assert [path.name for path in folder.iterdir()] == ["new.part"]


async def test_a_running_upload_is_not_removed_when_the_clock_was_set_forward(resources: Resources, mp4: bytes) -> None:
    continued = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n' + mp4[:100]
        await continued.wait()
        yield mp4[100:] + b"\r\n--b--\r\n"

    await register(resources.database)
    async with asking(multiuser(resources), *ROUTERS) as clients:
        options: dict[str, Any] = {"params": ASKED, "headers": BOUNDARY}
        first = asyncio.create_task(clients["ann"].post(UPLOAD, content=slow(), **options))
        folder = resources.settings.outputs_path / "videos" / ".uploads"
        while not (parts := list(folder.glob("*.part"))):
            await asyncio.sleep(0.001)
        os.utime(parts[0], (time.time() - 2 * 24 * 3600,) * 2)
        second = await clients["bob"].post(UPLOAD, content=b"--b--", **options)
        assert second.status_code == 422
        assert parts[0].exists()
        continued.set()
        assert (await first).status_code == 201


async def test_subfolders_follow_the_image_strategy(resources: Resources, mp4: bytes) -> None:
    settings = Settings(root=resources.settings.root, image_subfolder_strategy="type")

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n' + mp4 + b"\r\n--b--\r\n"

    video = await service.upload(
        Resources(settings, resources.database, resources.events),
        body(),
        BOUNDARY["content-type"],
        category=ImageCategory.USER,
        is_intermediate=False,
    )
    stem = video.video_name.removesuffix(".mp4")
    assert video.video_subfolder == "user"
    assert left(resources) == [f"thumbnails/user/{stem}.webp", f"user/{video.video_name}"]
