"""The routes of single images and of lists: what each answers when it works and when it can't."""

import asyncio
import re

import httpx
import pytest

from invokeclone.images import files
from invokeclone.images.events import ImagesDeletedEvent
from invokeclone.images.schemas import ImageLocation
from tests import stored_files
from tests.applications import decode_image, encode_image, sample_image

IMAGES = "/api/v1/images"


async def names(client: httpx.AsyncClient, **query: object) -> list[str]:
    answer = await client.get(f"{IMAGES}/names", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["image_names"]


async def board(client: httpx.AsyncClient, name: str = "b") -> str:
    return (await client.post("/api/v1/boards/", params={"board_name": name})).json()["board_id"]


class TestOne:
    async def test_get(self, upload, client) -> None:
        image = await upload()
        assert (await client.get(f"{IMAGES}/i/{image['image_name']}")).json() == image
        assert (await client.get(f"{IMAGES}/i/nope.png")).status_code == 404

    async def test_patch(self, upload, client) -> None:
        image = await upload()
        changes = {"image_category": "mask", "session_id": "s", "is_intermediate": True, "starred": True, "extra": 1}
        changed = (await client.patch(f"{IMAGES}/i/{image['image_name']}", json=changes)).json()
        assert {key: changed[key] for key in changes if key != "extra"} == {
            k: v for k, v in changes.items() if k != "extra"
        }
        unchanged = (await client.patch(f"{IMAGES}/i/{image['image_name']}", json={"starred": None})).json()
        assert unchanged["starred"] is True
        assert (await client.get(f"{IMAGES}/i/{image['image_name']}")).json() == unchanged

    @pytest.mark.parametrize(
        "changes", [{"starred": "true"}, {"starred": 1}, {"session_id": 3}, {"image_category": "x"}]
    )
    async def test_patch_is_strict(self, upload, client, changes) -> None:
        image = await upload()
        assert (await client.patch(f"{IMAGES}/i/{image['image_name']}", json=changes)).status_code == 422

    async def test_patch_of_an_unknown_image_is_a_400(self, client) -> None:
        assert (await client.patch(f"{IMAGES}/i/nope.png", json={"starred": True})).status_code == 400

    async def test_urls_are_made_from_any_name(self, client) -> None:
        assert (await client.get(f"{IMAGES}/i/nope.png/urls")).json() == {
            "image_name": "nope.png",
            "image_url": "api/v1/images/i/nope.png/full",
            "thumbnail_url": "api/v1/images/i/nope.png/thumbnail",
        }

    @pytest.mark.parametrize("part", ["metadata", "workflow", "full", "thumbnail"])
    async def test_parts_of_an_unknown_image_are_404(self, client, part: str) -> None:
        assert (await client.get(f"{IMAGES}/i/nope.png/{part}")).status_code == 404

    async def test_delete(self, upload, client, resources, events) -> None:
        image = await upload()
        name = image["image_name"]
        answer = await client.delete(f"{IMAGES}/i/{name}")
        assert answer.json() == {"affected_boards": ["none"], "deleted_images": [name], "failed_images": []}
        assert [path for path in resources.settings.outputs_path.rglob("*") if path.is_file()] == []
        assert [event.image_names for event in events.sent if isinstance(event, ImagesDeletedEvent)] == [[name]]
        assert (await client.delete(f"{IMAGES}/i/{name}")).status_code == 404
        assert (await client.get(f"{IMAGES}/i/{name}/full")).status_code == 404


class TestMedia:
    async def test_full(self, upload, client) -> None:
        image = await upload()
        answer = await client.get(f"/{image['image_url']}")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"] == f'inline; filename="{image["image_name"]}"'
        assert answer.headers["cache-control"] == "max-age=31536000"
        assert decode_image(answer.content).size == (48, 32)
        head = await client.head(f"/{image['image_url']}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.content))
        assert head.headers["etag"] == answer.headers["etag"]
        assert (await client.head(f"{IMAGES}/i/nope.png/full")).status_code == 404

    async def test_cached_files_are_not_sent_again(self, upload, client) -> None:
        image = await upload()
        tag = (await client.get(f"/{image['image_url']}")).headers["etag"]
        for if_none_match in (tag, f'"other", W/{tag}'):
            answer = await client.get(f"/{image['image_url']}", headers={"If-None-Match": if_none_match})
            assert (answer.status_code, answer.content) == (304, b"")
        assert (await client.get(f"/{image['image_url']}", headers={"If-None-Match": '"other"'})).status_code == 200

    async def test_large_files_are_streamed(self, upload, client, monkeypatch) -> None:
        monkeypatch.setattr("invokeclone.images.responses.MAX_BUFFERED_SIZE", 10)
        image = await upload()
        whole = await client.get(f"/{image['image_url']}")
        assert decode_image(whole.content).size == (48, 32)
        head = await client.head(f"/{image['image_url']}")
        assert head.headers["content-length"] == str(len(whole.content))
        part = await client.get(f"/{image['image_url']}", headers={"Range": "bytes=0-7"})
        assert (part.status_code, part.content) == (206, b"\x89PNG\r\n\x1a\n")

    @pytest.mark.parametrize(
        ("mode", "kept"), [("RGB", "RGB"), ("RGBA", "RGBA"), ("L", "RGB"), ("P", "RGB"), ("LA", "RGBA")]
    )
    async def test_thumbnail(self, upload, client, mode: str, kept: str) -> None:
        sent = sample_image("RGB", (700, 300)).convert(mode)
        if kept == "RGBA":
            sent.putalpha(99)
        image = await upload(encode_image(sent))
        answer = await client.get(f"/{image['thumbnail_url']}")
        assert answer.headers["content-type"] == "image/webp"
        assert answer.headers["cache-control"] == "max-age=31536000"
        small = decode_image(answer.content)
        assert (small.size, small.mode, small.format) == ((256, 110), kept, "WEBP")

    async def test_small_images_are_not_enlarged(self, upload, client) -> None:
        image = await upload()
        assert decode_image((await client.get(f"/{image['thumbnail_url']}")).content).size == (48, 32)

    async def test_a_missing_thumbnail_is_regenerated(self, upload, client, resources) -> None:
        image = await upload()
        path = stored_files.thumbnail_path(resources.settings, ImageLocation(image["image_name"], ""))
        path.unlink()
        assert decode_image((await client.get(f"/{image['thumbnail_url']}")).content).size == (48, 32)
        assert path.is_file()

    async def test_a_missing_image_file_is_a_404(self, upload, client, resources) -> None:
        image = await upload()
        location = ImageLocation(image["image_name"], "")
        files.remove(resources.storage, [location])
        for part in ("full", "thumbnail", "workflow"):
            assert (await client.get(f"{IMAGES}/i/{image['image_name']}/{part}")).status_code == 404
        assert (await client.delete(f"{IMAGES}/i/{image['image_name']}")).status_code == 200

    @pytest.mark.parametrize("name", ["..%2F..%2Fsecret", "..%5Csecret", "%2Fetc%2Fpasswd", "a%00b", "....//x"])
    @pytest.mark.parametrize("part", ["full", "thumbnail", "workflow", "metadata"])
    async def test_path_traversal_in_names_is_refused(self, client, resources, name: str, part: str) -> None:
        secret = resources.settings.outputs_path / "secret"
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("s")
        assert (await client.get(f"{IMAGES}/i/{name}/{part}")).status_code == 404

    async def test_special_characters_in_urls_are_escaped(self, client) -> None:
        urls = (await client.get(f"{IMAGES}/i/a%3Fb%23c/urls")).json()
        assert urls["image_url"] == "api/v1/images/i/a%3Fb%23c/full"


class TestLists:
    async def test_pages_and_names_have_the_same_order(self, upload, client) -> None:
        uploads = [(await upload())["image_name"] for _ in range(7)]
        await client.post(f"{IMAGES}/star", json={"image_names": [uploads[2], uploads[4]]})
        expected = [uploads[4], uploads[2], uploads[6], uploads[5], uploads[3], uploads[1], uploads[0]]
        pages = []
        for offset in (0, 3, 6):
            page = (await client.get(f"{IMAGES}/", params={"offset": offset, "limit": 3})).json()
            assert (page["offset"], page["limit"], page["total"]) == (offset, 3, 7)
            pages += [item["image_name"] for item in page["items"]]
        assert pages == expected
        listed = (await client.get(f"{IMAGES}/names")).json()
        assert listed == {"image_names": expected, "starred_count": 2, "total_count": 7}

    async def test_directions(self, upload, client) -> None:
        uploads = [(await upload())["image_name"] for _ in range(4)]
        await client.post(f"{IMAGES}/star", json={"image_names": [uploads[1]]})
        assert await names(client, order_dir="ASC") == [uploads[1], uploads[0], uploads[2], uploads[3]]
        assert await names(client, order_dir="ASC", starred_first="false") == uploads
        unstarred = await client.get(f"{IMAGES}/names", params={"starred_first": "false"})
        assert unstarred.json() == {"image_names": uploads[::-1], "starred_count": 0, "total_count": 4}

    async def test_page_items_are_full_records(self, upload, client) -> None:
        image = await upload()
        assert (await client.get(f"{IMAGES}/")).json() == {"limit": 10, "offset": 0, "total": 1, "items": [image]}

    async def test_filters(self, upload, client) -> None:
        on = await board(client)
        general = (await upload())["image_name"]
        mask = (await upload(image_category="mask"))["image_name"]
        step = (await upload(is_intermediate="true"))["image_name"]
        boarded = (await upload(board_id=on))["image_name"]
        assert await names(client, categories=["mask", "user"]) == [mask]
        assert await names(client, is_intermediate="true") == [step]
        assert await names(client, is_intermediate="false", categories="general") == [boarded, general]
        assert await names(client, board_id=on) == [boarded]
        assert await names(client, board_id="none") == [step, mask, general]
        assert await names(client, board_id="unknown") == []
        assert await names(client, image_origin="internal") == []
        assert len(await names(client, image_origin="external")) == 4
        page = (await client.get(f"{IMAGES}/", params={"board_id": "none", "limit": 1})).json()
        assert (page["total"], len(page["items"])) == (3, 1)

    @pytest.mark.parametrize(
        ("term", "found"),
        [("ZEBRA", 1), ("zebra", 1), ("z_bra", 1), ("z%a", 1), ("horse", 0), ("É", 1), ("20", 2), ("ä", 1), ("🦓", 1)],
    )
    async def test_search(self, upload, client, term: str, found: int) -> None:
        await upload(form={"metadata": '{"positive_prompt": "a zebra in É", "b": "\\u00e4 \\ud83e\\udd93"}'})
        await upload()
        assert len(await names(client, search_term=term)) == found
        assert (await client.get(f"{IMAGES}/", params={"search_term": term})).json()["total"] == found

    async def test_long_name_lists_are_gzipped(self, upload, client, monkeypatch) -> None:
        monkeypatch.setattr("invokeclone.images.responses.GZIP_MIN_SIZE", 100)
        uploads = [(await upload())["image_name"] for _ in range(4)]
        answer = await client.get(f"{IMAGES}/names", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.json()["image_names"] == uploads[::-1]
        plain = await client.get(f"{IMAGES}/names", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.json() == answer.json()

    async def test_search_ignores_file_names(self, upload, client) -> None:
        image = await upload()
        assert await names(client, search_term=image["image_name"]) == []

    @pytest.mark.parametrize(
        "query",
        [
            {"limit": 1001},
            {"limit": -1},
            {"offset": -1},
            {"order_dir": "up"},
            {"categories": "x"},
            {"search_term": "x" * 5000},
        ],
    )
    async def test_invalid_list_queries_are_refused(self, client, query) -> None:
        assert (await client.get(f"{IMAGES}/", params=query)).status_code == 422

    async def test_an_offset_beyond_the_end(self, upload, client) -> None:
        await upload()
        page = (await client.get(f"{IMAGES}/", params={"offset": 10**30})).json()
        assert (page["items"], page["total"]) == ([], 1)
        assert (await client.get(f"{IMAGES}/", params={"limit": 0})).json()["items"] == []

    async def test_by_names(self, upload, client) -> None:
        first, second = await upload(), await upload()
        image_names = [second["image_name"], "nope.png", first["image_name"], second["image_name"]]
        answer = await client.post(f"{IMAGES}/images_by_names", json={"image_names": image_names})
        assert answer.json() == [second, first, second]
        assert (await client.post(f"{IMAGES}/images_by_names", json={"image_names": []})).json() == []

    @pytest.mark.parametrize("route", ["images_by_names", "delete", "star", "unstar"])
    @pytest.mark.parametrize("chosen", [["x"] * 1001, ["x" * 256], "x", [1]])
    async def test_invalid_name_lists_are_refused(self, client, route: str, chosen) -> None:
        assert (await client.post(f"{IMAGES}/{route}", json={"image_names": chosen})).status_code == 422


class TestBulk:
    async def test_star_and_unstar(self, upload, client) -> None:
        on = await board(client)
        first, second = (await upload())["image_name"], (await upload(board_id=on))["image_name"]
        result = (await client.post(f"{IMAGES}/star", json={"image_names": [first, second, "nope.png", first]})).json()
        assert sorted(result["starred_images"]) == sorted([first, second])
        assert sorted(result["affected_boards"]) == sorted([on, "none"])
        assert result["failed_images"] == []
        assert (await client.get(f"{IMAGES}/i/{first}")).json()["starred"] is True
        result = (await client.post(f"{IMAGES}/unstar", json={"image_names": [second]})).json()
        assert result == {"affected_boards": [on], "unstarred_images": [second], "failed_images": []}
        assert (await client.get(f"{IMAGES}/i/{second}")).json()["starred"] is False

    async def test_delete(self, upload, client, resources) -> None:
        uploads = [(await upload())["image_name"] for _ in range(3)]
        result = (await client.post(f"{IMAGES}/delete", json={"image_names": [*uploads[:2], "nope.png"]})).json()
        assert sorted(result["deleted_images"]) == sorted(uploads[:2])
        assert (result["affected_boards"], result["failed_images"]) == (["none"], [])
        assert await names(client) == [uploads[2]]
        nothing = (await client.post(f"{IMAGES}/delete", json={"image_names": ["nope.png"]})).json()
        assert nothing == {"affected_boards": [], "deleted_images": [], "failed_images": []}

    async def test_uncategorized(self, upload, client) -> None:
        on = await board(client)
        boarded = (await upload(board_id=on))["image_name"]
        free = [
            (await upload())["image_name"],
            (await upload(is_intermediate="true", image_category="mask"))["image_name"],
        ]
        result = (await client.delete(f"{IMAGES}/uncategorized")).json()
        assert sorted(result["deleted_images"]) == sorted(free)
        assert result["affected_boards"] == ["none"]
        assert await names(client) == [boarded]

    async def test_intermediates(self, upload, client) -> None:
        name = (await upload())["image_name"]
        await upload(is_intermediate="true")
        await upload(is_intermediate="true")
        assert (await client.get(f"{IMAGES}/intermediates")).json() == 2
        assert (await client.delete(f"{IMAGES}/intermediates")).json() == 2
        assert (await client.get(f"{IMAGES}/intermediates")).json() == 0
        assert await names(client) == [name]

    async def test_starring_while_deleting(self, upload, client) -> None:
        uploads = [(await upload())["image_name"] for _ in range(12)]
        requests = [
            client.post(f"{IMAGES}/{route}", json={"image_names": image_names})
            for route, image_names in [
                ("star", uploads),
                ("delete", uploads[:6]),
                ("unstar", uploads),
                ("delete", uploads[3:9]),
                ("star", uploads),
            ]
        ]
        answers = [answer.json() for answer in await asyncio.gather(*requests)]
        deleted = answers[1]["deleted_images"] + answers[3]["deleted_images"]
        assert sorted(deleted) == sorted(uploads[:9])
        assert sorted(await names(client)) == sorted(uploads[9:])
        assert all(
            set(uploads[9:]) <= set(answers[i][key]) for i, key in ((0, "starred_images"), (2, "unstarred_images"))
        )

    async def test_many_uploads_at_once(self, upload, client) -> None:
        images = await asyncio.gather(*[upload() for _ in range(20)])
        assert len({image["image_name"] for image in images}) == 20
        assert all(re.fullmatch(r"[0-9a-f-]{36}\.png", image["image_name"]) for image in images)
        assert (await client.get(f"{IMAGES}/names")).json()["total_count"] == 20


class TestLongLists:
    """Lists of names that are packed and sent in pieces."""

    @pytest.mark.parametrize("encoding", ["gzip", "identity"])
    @pytest.mark.parametrize("count", [0, 2, 3, 6, 7])
    async def test_chunks_form_one_list(self, upload, client, monkeypatch, count: int, encoding: str) -> None:
        for name, value in (("CHUNK_SIZE", 100), ("GZIP_MIN_SIZE", 10), ("OFFLOAD_MIN_SIZE", 80)):
            monkeypatch.setattr(f"invokeclone.images.responses.{name}", value)
        uploads = [(await upload())["image_name"] for _ in range(count)]
        await client.post(f"{IMAGES}/star", json={"image_names": uploads[:1]})
        answer = await client.get(f"{IMAGES}/names", headers={"Accept-Encoding": encoding})
        expected = uploads[:1] + uploads[:0:-1]
        assert answer.json() == {"image_names": expected, "starred_count": len(uploads[:1]), "total_count": count}
        assert answer.headers.get("content-encoding") == (encoding if encoding == "gzip" else None)
        assert "content-length" in answer.headers
        plain = await client.get(f"{IMAGES}/names", params={"starred_first": "false"})
        assert plain.json() == {"image_names": uploads[::-1], "starred_count": 0, "total_count": count}
