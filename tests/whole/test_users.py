"""Several users on one real server: from setup over signing in to pictures of one's own, made by a real worker."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import socketio

from tests.server_process import PATIENCE, Server
from tests.whole.conftest import EventListener

PASSWORD = "Right-Passw0rd"
GRAPH = {
    "nodes": {
        "blank": {"id": "blank", "type": "blank_image", "width": 64, "height": 64, "is_intermediate": False},
    }
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("users") / "root").start(INVOKEAI_MULTIUSER="true")
    yield running
    running.client.close()
    running.stop()


class UserClient:
    """Somebody with an account, a client and a listener."""

    def __init__(self, server: Server, name: str) -> None:
        self.email = f"{name}@example.com"
        self.http = httpx.Client(base_url=server.url, timeout=60)
        self.listener = EventListener()
        self.token = ""

    def sign_in(self) -> "UserClient":
        answer = self.http.post("/api/v1/auth/login", json={"email": self.email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.token, self.id = answer.json()["token"], answer.json()["user"]["user_id"]
        self.http.headers["Authorization"] = f"Bearer {self.token}"
        return self

    async def listen(self, server: Server) -> None:
        auth = {"token": self.token}
        await self.listener.client.connect(server.url, auth=auth)
        await self.listener.client.subscribe()

    def run(self, graph: dict[str, Any] = GRAPH) -> int:
        answer = self.http.post("/api/v1/queue/default/enqueue_batch", json={"batch": {"graph": graph, "runs": 1}})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["item_ids"][0])

    def item(self, item_id: int) -> dict[str, Any]:
        return dict(self.http.get(f"/api/v1/queue/default/i/{item_id}").json())

    def images(self) -> list[str]:
        return [image["image_name"] for image in self.http.get("/api/v1/images/").json()["items"]]


@pytest.fixture(scope="module")
def people(shared: Server) -> Iterator[dict[str, UserClient]]:
    users = {name: UserClient(shared, name) for name in ("admin", "alice", "bob")}
    admin = users["admin"]
    assert shared.client.get("/api/v1/auth/status").json()["setup_required"] is True
    setup = shared.client.post("/api/v1/auth/setup", json={"email": admin.email, "password": PASSWORD})
    assert setup.status_code == 200, setup.text
    admin.sign_in()
    for name in ("alice", "bob"):
        response = admin.http.post("/api/v1/auth/users", json={"email": users[name].email, "password": PASSWORD})
        assert response.status_code == 201, response.text
        users[name].sign_in()
    yield users
    for person in users.values():
        person.http.close()


async def test_image_belongs_to_the_user_who_generated_it(shared: Server, people: dict[str, UserClient]) -> None:
    alice, bob, admin = (people[name] for name in ("alice", "bob", "admin"))
    for person in (alice, bob, admin):
        await person.listen(shared)
    item = await asyncio.to_thread(alice.run)
    event = await alice.listener.until("queue_item_status_changed", item_id=item, status="completed")
    assert event["user_id"] == alice.id
    await admin.listener.until("queue_item_status_changed", item_id=item, status="completed", user_id=alice.id)
    await bob.listener.until("queue_item_status_changed", item_id=item, status="completed", user_id="redacted")
    assert {name for name, _ in bob.listener.of(item)} == {"queue_item_status_changed"}
    assert len(bob.listener.of(item)) == 2
    assert alice.id not in str(bob.listener.events)
    complete_event = await alice.listener.until("invocation_complete", item_id=item)
    name = complete_event["result"]["image"]["image_name"]
    assert (alice.images(), bob.images(), admin.images()) == ([name], [], [name])
    path = f"/api/v1/images/i/{name}/full"
    assert (alice.http.get(path).status_code, bob.http.get(path).status_code) == (200, 403)
    with httpx.Client(base_url=shared.url) as browser:
        assert browser.get(path).status_code == 401
        for person, status in ((alice, 200), (bob, 403)):
            cookie = person.http.cookies["invokeai_media_token"]
            assert browser.get(path, headers={"Cookie": f"invokeai_media_token={cookie}"}).status_code == status
    assert bob.item(item)["session"]["graph"]["nodes"] == {}

    again = await asyncio.to_thread(bob.run)
    await bob.listener.until("queue_item_status_changed", item_id=again, status="completed")
    assert len(bob.images()) == 1
    assert bob.images() != [name], "what was kept of one user's run is not handed to another"
    for person in (alice, bob, admin):
        await person.listener.client.disconnect()


async def test_disabled_account_stops_its_items_and_disconnects_its_socket(
    shared: Server, people: dict[str, UserClient]
) -> None:
    admin, bob = people["admin"], people["bob"]
    bob.listener = EventListener()
    await bob.listen(shared)
    admin.http.put("/api/v1/queue/default/processor/pause")
    item = await asyncio.to_thread(bob.run)
    closed = admin.http.patch(f"/api/v1/auth/users/{bob.id}", json={"is_active": False})
    assert closed.status_code == 200
    async with asyncio.timeout(PATIENCE):
        while bob.listener.client.connected:
            await asyncio.sleep(0.02)
    bob.listener = EventListener()
    with pytest.raises(socketio.exceptions.ConnectionError):
        await bob.listen(shared)
    admin.http.put("/api/v1/queue/default/processor/resume")
    await asyncio.to_thread(shared.wait_for, lambda: admin.item(item)["status"] == "canceled", "the item's end")
    assert bob.http.get("/api/v1/auth/me").status_code == 401


def test_tokens_and_passwords_are_not_logged(shared: Server, people: dict[str, UserClient]) -> None:
    text = shared.log.read_text()
    assert PASSWORD not in text
    for person in people.values():
        assert person.token not in text
        assert person.token.split(".")[1] not in text
