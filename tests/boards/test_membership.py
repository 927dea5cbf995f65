"""Images on boards: moving one or many, and the boards that the responses name."""

import asyncio

import pytest

ROUTE = "/api/v1/board_images"


async def board_of(client, name: str) -> str | None:
    return (await client.get(f"/api/v1/images/i/{name}")).json()["board_id"]


async def test_one_image_moves_from_board_to_board(client, board, image) -> None:
    first, second, name = await board(), await board(), await image()
    answer = await client.post(f"{ROUTE}/", json={"board_id": first, "image_name": name})
    assert answer.status_code == 201
    assert answer.json() == {"affected_boards": sorted(["none", first]), "added_images": [name], "failed_images": []}
    answer = (await client.post(f"{ROUTE}/", json={"board_id": second, "image_name": name})).json()
    assert answer["affected_boards"] == sorted([first, second])
    assert await board_of(client, name) == second
    answer = await client.request("DELETE", f"{ROUTE}/", json={"image_name": name})
    assert answer.status_code == 201
    assert answer.json() == {"affected_boards": sorted(["none", second]), "removed_images": [name], "failed_images": []}
    assert await board_of(client, name) is None


async def test_removing_an_image_that_is_on_no_board(client, image) -> None:
    name = await image()
    result = (await client.request("DELETE", f"{ROUTE}/", json={"image_name": name})).json()
    assert result == {"affected_boards": ["none"], "removed_images": [name], "failed_images": []}


async def test_images_are_added_and_removed_in_batches(client, board, image) -> None:
    first, second = await board(), await board()
    free, boarded, already = await image(), await image(first), await image(second)
    answer = await client.post(
        f"{ROUTE}/batch", json={"board_id": second, "image_names": [free, boarded, already, "nope.png", free]}
    )
    assert answer.status_code == 201
    assert sorted(answer.json()["added_images"]) == sorted([free, boarded, already])
    assert answer.json()["affected_boards"] == sorted(["none", first, second])
    assert answer.json()["failed_images"] == []
    answer = await client.post(f"{ROUTE}/batch/delete", json={"image_names": [free, "nope.png"]})
    assert answer.status_code == 201
    assert answer.json() == {"affected_boards": sorted(["none", second]), "removed_images": [free], "failed_images": []}
    assert [await board_of(client, name) for name in (free, boarded, already)] == [None, second, second]


async def test_a_batch_without_known_images_affects_no_board(client, board) -> None:
    on = await board()
    result = (await client.post(f"{ROUTE}/batch", json={"board_id": on, "image_names": ["nope.png"]})).json()
    assert result == {"affected_boards": [], "added_images": [], "failed_images": []}
    result = (await client.post(f"{ROUTE}/batch/delete", json={"image_names": []})).json()
    assert result == {"affected_boards": [], "removed_images": [], "failed_images": []}


async def test_unknown_boards_and_images_are_404(client, board, image) -> None:
    on, name = await board(), await image()
    assert (await client.post(f"{ROUTE}/", json={"board_id": "nope", "image_name": name})).status_code == 404
    assert (await client.post(f"{ROUTE}/", json={"board_id": on, "image_name": "nope.png"})).status_code == 404
    assert (await client.post(f"{ROUTE}/batch", json={"board_id": "nope", "image_names": [name]})).status_code == 404
    assert (await client.request("DELETE", f"{ROUTE}/", json={"image_name": "nope.png"})).status_code == 404
    assert await board_of(client, name) is None


@pytest.mark.parametrize("names", [["x"] * 1001, ["x" * 256], "x"])
async def test_invalid_name_lists_are_refused(client, board, names) -> None:
    on = await board()
    assert (await client.post(f"{ROUTE}/batch", json={"board_id": on, "image_names": names})).status_code == 422
    assert (await client.post(f"{ROUTE}/batch/delete", json={"image_names": names})).status_code == 422


async def test_concurrent_moves_leave_an_image_on_one_board(client, board, image) -> None:
    boards, name = [await board() for _ in range(6)], await image()
    await asyncio.gather(*[client.post(f"{ROUTE}/", json={"board_id": on, "image_name": name}) for on in boards])
    listed = (await client.get("/api/v1/boards/", params={"all": "true"})).json()
    assert sum(item["image_count"] for item in listed) == 1
    assert await board_of(client, name) in boards
