"""Who may see and change images and boards where users sign in: the routes asked by their owner, another user and an admin."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from invokeclone.boards.api import router as boards_router
from invokeclone.images.api import router as images_router
from invokeclone.kit.resources import Resources
from tests.applications import encode_image, sample_image
from tests.images.people import asking, multiuser, register

IMAGES = "/api/v1/images"
BOARDS = "/api/v1/boards"
ON_BOARD = "/api/v1/board_images"
Clients = dict[str, httpx.AsyncClient]
Make = Callable[..., Awaitable[str]]


@pytest.fixture
async def people(resources: Resources) -> AsyncIterator[Clients]:
    await register(resources.database)
    async with asking(multiuser(resources), images_router, boards_router) as clients:
        yield clients


@pytest.fixture
def board(people: Clients) -> Make:
    async def make(who: str, visibility: str = "private") -> str:
        answer = await people[who].post(f"{BOARDS}/", params={"board_name": f"{who}'s"})
        board_id = answer.json()["board_id"]
        changed = await people[who].patch(f"{BOARDS}/{board_id}", json={"board_visibility": visibility})
        assert changed.status_code == 201
        return board_id

    return make


@pytest.fixture
def image(people: Clients) -> Make:
    async def make(who: str, board_id: str | None = None, status: int = 201, **query: Any) -> str:
        sent = {"image_category": "general", "is_intermediate": "false", **query}
        if board_id is not None:
            sent["board_id"] = board_id
        answer = await people[who].post(
            f"{IMAGES}/upload", params=sent, files={"file": ("x.png", encode_image(sample_image()), "image/png")}
        )
        assert answer.status_code == status, answer.text
        return answer.json().get("image_name", "")

    return make


async def names(client: httpx.AsyncClient, **query: object) -> list[str]:
    answer = await client.get(f"{IMAGES}/names", params=query)
    assert answer.status_code == 200, answer.text
    listed = await client.get(f"{IMAGES}/", params={"limit": 100, **query})
    assert [item["image_name"] for item in listed.json()["items"]] == answer.json()["image_names"]
    assert listed.json()["total"] == answer.json()["total_count"]
    return answer.json()["image_names"]


PARTS = ["", "/metadata", "/workflow", "/urls", "/full", "/thumbnail"]


async def seen(client: httpx.AsyncClient, name: str) -> set[int]:
    statuses = {(await client.get(f"{IMAGES}/i/{name}{part}")).status_code for part in PARTS}
    return statuses | {(await client.head(f"{IMAGES}/i/{name}/full")).status_code}


class TestReading:
    async def test_owner_and_admin_can_read_and_others_cannot(self, people, image) -> None:
        name = await image("ann")
        assert await seen(people["ann"], name) == {200}
        assert await seen(people["root"], name) == {200}
        assert await seen(people["bob"], name) == {403}

    @pytest.mark.parametrize(("visibility", "status"), [("private", 403), ("shared", 200), ("public", 200)])
    async def test_board_visibility_decides_who_can_read(
        self, people, board, image, visibility: str, status: int
    ) -> None:
        on = await board("ann", visibility)
        name = await image("ann", on)
        assert await seen(people["bob"], name) == {status}
        assert (await people["bob"].get(f"{BOARDS}/{on}")).status_code == status
        assert (await people["bob"].get(f"{BOARDS}/{on}/image_names")).status_code == status
        for part in ("", "names"):
            assert (await people["bob"].get(f"{IMAGES}/{part}", params={"board_id": on})).status_code == status
        answer = await people["bob"].post(f"{IMAGES}/images_by_names", json={"image_names": [name]})
        assert [item["image_name"] for item in answer.json()] == ([name] if status == 200 else [])
        listed = (await people["bob"].get(f"{BOARDS}/", params={"all": "true"})).json()
        assert [item["board_id"] for item in listed] == ([on] if status == 200 else [])
        page = (await people["bob"].get(f"{BOARDS}/", params={"offset": 0, "limit": 5})).json()
        assert ([item["board_id"] for item in page["items"]], page["total"]) == (
            ([on], 1) if status == 200 else ([], 0)
        )

    async def test_private_board_owners_do_not_see_images_of_others(self, people, board, image) -> None:
        on = await board("ann", "public")
        left = await image("bob", on)
        assert await names(people["ann"], board_id=on) == [left]
        await people["ann"].patch(f"{BOARDS}/{on}", json={"board_visibility": "private"})
        assert await seen(people["ann"], left) == {403}
        assert await names(people["ann"], board_id=on) == []
        assert (await people["ann"].get(f"{BOARDS}/{on}/image_names")).json() == []
        assert await seen(people["bob"], left) == {200}
        # … and may delete it, or take it off.
        result = (await people["ann"].post(f"{IMAGES}/delete", json={"image_names": [left]})).json()
        assert result["deleted_images"] == [left]

    async def test_lists_contain_only_own_images(self, people, board, image) -> None:
        unboarded, _ = await image("ann"), await image("bob")
        boarded = await image("ann", await board("ann"))
        shared = await board("bob", "shared")
        on_shared = await image("bob", shared)
        assert await names(people["ann"]) == [boarded, unboarded]
        assert await names(people["ann"], board_id="none", is_intermediate="false") == [unboarded]
        assert await names(people["ann"], board_id=shared) == [on_shared]
        assert (await people["ann"].get(f"{BOARDS}/none/image_names")).json() == [unboarded]
        assert len(await names(people["root"])) == 4

    async def test_an_unknown_board_is_a_404(self, people) -> None:
        """In single-user mode its lists are empty, which clients know."""
        for who in ("ann", "root", "system"):
            for path in (f"{IMAGES}/", f"{IMAGES}/names"):
                answer = await people[who].get(path, params={"board_id": "nope"})
                assert answer.status_code == (200 if who == "system" else 404), who
            assert (await people[who].get(f"{BOARDS}/nope")).status_code == 404
            assert (await people[who].get(f"{BOARDS}/nope/image_names")).status_code == 404

    async def test_admins_see_all_images_on_every_board(self, people, board, image) -> None:
        for visibility in ("private", "shared", "public"):
            on = await board("ann", visibility)
            name = await image("ann", on)
            assert await names(people["root"], board_id=on) == [name]

    async def test_an_unknown_image_is_a_404_for_everyone(self, people) -> None:
        for who in ("ann", "root"):
            for part in ("", "/metadata", "/workflow", "/full", "/thumbnail"):
                assert (await people[who].get(f"{IMAGES}/i/nope.png{part}")).status_code == 404

    async def test_responses_are_not_cached_by_browsers(self, people, image) -> None:
        """What one user's browser kept would be there for the next who signs in."""
        name = await image("ann")
        for part in ("full", "thumbnail"):
            answer = await people["ann"].get(f"{IMAGES}/i/{name}/{part}")
            assert answer.headers["cache-control"] == "private, no-store"
            headers = {"If-None-Match": answer.headers["etag"]}
            assert (await people["bob"].get(f"{IMAGES}/i/{name}/{part}", headers=headers)).status_code == 403

    async def test_lists_include_the_owners_name_for_admins(self, people, board) -> None:
        on = await board("ann", "public")
        for who, owner in (("root", "Ann"), ("ann", None), ("bob", None)):
            listed = (await people[who].get(f"{BOARDS}/", params={"all": "true"})).json()
            page = (await people[who].get(f"{BOARDS}/", params={"offset": 0, "limit": 1})).json()["items"]
            assert [item["owner_username"] for item in (*listed, *page)] == [owner, owner]
            assert (await people[who].get(f"{BOARDS}/{on}")).json()["owner_username"] is None


class TestChanging:
    @pytest.mark.parametrize(
        ("visibility", "owner_of_board", "allowed"),
        [
            ("private", "ann", False),
            ("shared", "ann", False),
            ("public", "ann", True),
            ("public", "root", True),
        ],
    )
    async def test_changing_an_image_of_another_user(
        self, people, board, image, visibility: str, owner_of_board: str, allowed: bool
    ) -> None:
        on = await board(owner_of_board, visibility)
        name = await image("ann", on)
        bob = people["bob"]
        body = {"image_names": [name, "nope.png"]}
        succeeded, failed = ([name], []) if allowed else ([], [name])
        status = 200 if allowed else 403
        assert (await bob.patch(f"{IMAGES}/i/{name}", json={"starred": True})).status_code == status
        for route in ("star", "unstar"):
            result = (await bob.post(f"{IMAGES}/{route}", json=body)).json()
            assert (result[f"{route}red_images"], result["failed_images"]) == (succeeded, failed)
            assert result["affected_boards"] == ([on] if allowed else [])
        result = (await bob.post(f"{IMAGES}/delete", json=body)).json()
        assert (result["deleted_images"], result["failed_images"]) == (succeeded, failed)
        assert (await bob.delete(f"{IMAGES}/i/{name}")).status_code == 403
        assert (await people["ann"].get(f"{IMAGES}/i/{name}")).status_code == (404 if allowed else 200)

    async def test_board_owners_may_delete_images_on_their_board(self, people, board, image) -> None:
        on = await board("ann", "public")
        name = await image("bob", on)
        assert (await people["ann"].delete(f"{IMAGES}/i/{name}")).status_code == 200

    async def test_deleting_an_unknown_image_is_a_403_except_for_admins(self, people) -> None:
        assert (await people["ann"].delete(f"{IMAGES}/i/nope.png")).status_code == 403
        assert (await people["root"].delete(f"{IMAGES}/i/nope.png")).status_code == 404
        assert (await people["ann"].patch(f"{IMAGES}/i/nope.png", json={"starred": True})).status_code == 400

    async def test_uncategorized_and_intermediates(self, people, image) -> None:
        anns, bobs = await image("ann"), await image("bob")
        step = await image("ann", is_intermediate="true")
        assert (await people["ann"].get(f"{IMAGES}/intermediates")).json() == 1
        assert (await people["bob"].get(f"{IMAGES}/intermediates")).json() == 0
        assert (await people["root"].get(f"{IMAGES}/intermediates")).json() == 1
        assert (await people["ann"].delete(f"{IMAGES}/intermediates")).status_code == 403
        result = (await people["ann"].delete(f"{IMAGES}/uncategorized")).json()
        assert sorted(result["deleted_images"]) == sorted([anns, step])
        assert await names(people["root"]) == [bobs]
        await image("ann", is_intermediate="true")
        assert (await people["root"].delete(f"{IMAGES}/intermediates")).json() == 1


class TestBoards:
    @pytest.mark.parametrize(("visibility", "status"), [("private", 403), ("shared", 403), ("public", 201)])
    async def test_adding_images_to_another_users_board(
        self, people, board, image, visibility: str, status: int
    ) -> None:
        on = await board("ann", visibility)
        name = await image("bob")
        single, many = {"board_id": on, "image_name": name}, {"board_id": on, "image_names": [name]}
        assert (await people["bob"].post(f"{ON_BOARD}/", json=single)).status_code == status
        assert (await people["bob"].post(f"{ON_BOARD}/batch", json=many)).status_code == status
        await image("bob", on, status=status)
        assert (await people["root"].post(f"{ON_BOARD}/batch", json=many)).status_code == 201

    async def test_uploads_to_an_unknown_board_are_a_404(self, image) -> None:
        await image("bob", "nope", status=404)

    async def test_only_own_images_are_moved(self, people, board, image) -> None:
        """Also where one may change them: on a public board."""
        public, bobs_board = await board("ann", "public"), await board("bob")
        anns_image, bobs_image = await image("ann", public), await image("bob")
        answer = await people["bob"].post(f"{ON_BOARD}/", json={"board_id": bobs_board, "image_name": anns_image})
        assert answer.status_code == 403
        batch = {"board_id": bobs_board, "image_names": [anns_image, bobs_image, "nope.png"]}
        result = (await people["bob"].post(f"{ON_BOARD}/batch", json=batch)).json()
        assert (result["added_images"], result["failed_images"]) == ([bobs_image], [anns_image])
        assert (await people["ann"].get(f"{IMAGES}/i/{anns_image}")).json()["board_id"] == public

    async def test_removing_images_from_boards(self, people, board, image) -> None:
        public, private = await board("ann", "public"), await board("ann")
        free, on_private = await image("ann", public), await image("ann", private)
        result = (await people["bob"].post(f"{ON_BOARD}/batch/delete", json={"image_names": [free, on_private]})).json()
        assert (result["removed_images"], result["failed_images"]) == ([free], [on_private])
        answer = await people["bob"].request("DELETE", f"{ON_BOARD}/", json={"image_name": on_private})
        assert answer.status_code == 403

    @pytest.mark.parametrize("visibility", ["private", "shared", "public"])
    async def test_only_the_owner_may_change_a_board(self, people, board, image, visibility: str) -> None:
        on = await board("ann", visibility)
        name = await image("ann", on)
        assert (await people["bob"].patch(f"{BOARDS}/{on}", json={"board_name": "x"})).status_code == 403
        for include in ("false", "true"):
            answer = await people["bob"].delete(f"{BOARDS}/{on}", params={"include_images": include})
            assert answer.status_code == 403
        assert (await people["ann"].get(f"{IMAGES}/i/{name}")).json()["board_id"] == on
        assert (await people["root"].patch(f"{BOARDS}/{on}", json={"board_name": "x"})).status_code == 201
        assert (await people["ann"].delete(f"{BOARDS}/{on}", params={"include_images": "true"})).status_code == 200
        assert (await people["ann"].get(f"{IMAGES}/i/{name}")).status_code == 404

    async def test_an_unknown_board_cannot_be_changed_or_deleted(self, people) -> None:
        assert (await people["ann"].patch(f"{BOARDS}/nope", json={"board_name": "x"})).status_code == 404
        assert (await people["ann"].delete(f"{BOARDS}/nope")).status_code == 404

    async def test_an_unreadable_cover_is_refused(self, people, board, image) -> None:
        """The reference answers 500 for an unknown one."""
        on, bobs_image = await board("ann"), await image("bob")
        for cover, status in ((bobs_image, 403), ("nope.png", 404), (await image("ann"), 201)):
            answer = await people["ann"].patch(f"{BOARDS}/{on}", json={"cover_image_name": cover})
            assert answer.status_code == status
