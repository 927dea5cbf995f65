"""Two hundred requests at once, readers and writers, against a real server: no 5xx, no locked database, no lost write."""

import asyncio
import io

import httpx
import pytest
from PIL import Image

from tests.server_process import Server

ROUNDS = 40


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number % 256, 40, 90)).save(buffer, "PNG")
    return buffer.getvalue()


async def test_two_hundred_mixed_requests_at_once(server: Server) -> None:
    batch = {"batch": {"graph": {"nodes": {"a": {"type": "add", "id": "a", "a": 1, "b": 2}}, "edges": []}, "runs": 3}}
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        board = (await client.post("/api/v1/boards/", params={"board_name": "all at once"})).json()["board_id"]
        upload = {"image_category": "user", "is_intermediate": False, "board_id": board}

        async def one_round(number: int) -> list[httpx.Response]:
            file = {"file": (f"{number}.png", picture(number), "image/png")}
            key = {"key": f"concurrent-{number}"}
            return list(
                await asyncio.gather(
                    client.post("/api/v1/images/upload", params=upload, files=file),
                    client.post("/api/v1/queue/default/enqueue_batch", json=batch),
                    client.post("/api/v1/client_state/default/set_by_key", params=key, content=f'"{number}"'),
                    client.get("/api/v1/images/", params={"limit": 100}),
                    client.get("/api/v1/queue/default/status"),
                )
            )

        rounds = await asyncio.gather(*(one_round(number) for number in range(ROUNDS)))
        answers = [answer for answers in rounds for answer in answers]
        assert len(answers) == 5 * ROUNDS
        wrong = [(answer.request.url.path, answer.status_code, answer.text) for answer in answers if answer.is_error]
        assert wrong == []

        names = {answer.json()["image_name"] for answers in rounds for answer in answers[:1]}
        on_board = (await client.get(f"/api/v1/boards/{board}/image_names")).json()
        assert set(on_board) == names
        assert len(names) == ROUNDS
        items = {item for answers in rounds for item in answers[1].json()["item_ids"]}
        assert len(items) == 3 * ROUNDS
        for number in range(ROUNDS):
            response = await client.get(
                "/api/v1/client_state/default/get_by_key", params={"key": f"concurrent-{number}"}
            )
            assert response.json() in (str(number), f'"{number}"')

        async def status_of(item: int) -> str:
            return str((await client.get(f"/api/v1/queue/default/i/{item}")).json()["status"])

        async with asyncio.timeout(120):
            while {await status_of(item) for item in items} != {"completed"}:
                await asyncio.sleep(0.2)
    assert "database is locked" not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("clients", [16])
async def test_no_uploads_are_lost_while_the_gallery_is_read(server: Server, clients: int) -> None:
    params = {"image_category": "general", "is_intermediate": False}
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        before = (await client.get("/api/v1/images/names", params={"categories": "general"})).json()["total_count"]

        async def upload(number: int) -> int:
            file = {"file": ("a.png", picture(number), "image/png")}
            answer = await client.post("/api/v1/images/upload", params=params, files=file)
            assert (await client.get("/api/v1/app/version")).status_code == 200
            return answer.status_code

        assert set(await asyncio.gather(*(upload(number) for number in range(clients)))) == {201}
        names = (await client.get("/api/v1/images/names", params={"categories": "general"})).json()
    assert names["total_count"] == before + clients == len(names["image_names"])
