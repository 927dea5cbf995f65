"""The whole application in multi-user mode, four people, and things of the owner's with a word in them that others must not read."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from PIL import Image

from invokeclone.images.archives.service import ImageDownloads
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.server.app import create_app
from tests.accounts import Account, account
from tests.images.videos.conftest import encode_video
from tests.users.rights import BOARDS, HOOKS, IMAGES, PRESET, PRESETS, PROMPTS, SECRET, STATE, VIDEOS, WORKFLOWS, Q, Row

PLACEHOLDER = re.compile(r"\{([a-z ]+)\}")
WATCHED = {
    "image": f"{IMAGES}/i/",
    "video": f"{VIDEOS}/i/",
    "board": f"{BOARDS}/",
    "item": f"{Q}/i/",
    "workflow": f"{WORKFLOWS}/i/",
    "preset": f"{PRESETS}/i/",
    "prompt": f"{PROMPTS}/i/",
    "comfy": "/queue?id=",
    "webhook": f"{HOOKS}/",
}
"""Where the owner sees a thing: after others have asked, it must be there as it was."""


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    return buffer.getvalue()


FORM: dict[str, Any] = {
    "name": SECRET, "author": "", "description": "", "version": "", "contact": "", "tags": "", "notes": "",
    "exposedFields": [], "meta": {"category": "user", "version": "3.0.0"}, "nodes": [], "edges": [], "form": None,
}  # fmt: skip


class World:
    """The whole application, four people, and things of the owner's."""

    def __init__(self, app: Application, video: bytes) -> None:
        self.app, self._video, self._png = app, video, _png()
        self.clients: dict[str, httpx.AsyncClient] = {}
        self.accounts: dict[str, Account] = {}
        self._count = 0

    async def thing(self, kind: str) -> str:
        """Make a thing of the owner's and return what it is called."""
        self._count += 1
        match kind:
            case "zip":
                return await self._zip()
            case "comfy":
                nodes = {
                    "1": {"class_type": "LoadImage", "inputs": {"image": await self.thing("image")}},
                    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": SECRET}},
                }
                return str((await self._request("POST", "/prompt", json={"prompt": nodes}))["prompt_id"])
            case "user":
                return (await account(self.app.services.get(Resources).database, f"user{self._count}")).user_id
            case "model":
                return str((await self._request("GET", "/api/v2/models/"))["models"][0]["key"])
            case "image":
                files = {"file": ("a.png", self._png, "image/png")}
                data = {"metadata": f'{{"positive_prompt": "{SECRET}"}}'}
                query = "?image_category=general&is_intermediate=false"
                return str(
                    (await self._request("POST", f"{IMAGES}/upload{query}", files=files, data=data))["image_name"]
                )
            case "video":
                files = {"file": ("a.mp4", self._video, "video/mp4")}
                query = "?video_category=general&is_intermediate=false"
                return str((await self._request("POST", f"{VIDEOS}/upload{query}", files=files))["video_name"])
            case "board":
                return str((await self._request("POST", f"{BOARDS}/?board_name={SECRET}{self._count}"))["board_id"])
            case "item":
                graph = {"nodes": {"a": {"id": "a", "type": "string", "value": SECRET}}}
                batch = {"batch": {"graph": graph, "runs": 1, "batch_id": "b", "destination": "d"}}
                enqueued = await self._request("POST", f"{Q}/enqueue_batch", json=batch)
                await self._request("PUT", f"{Q}/i/{enqueued['item_ids'][0]}/cancel")
                return str(enqueued["item_ids"][0])
            case "workflow":
                return str((await self._request("POST", f"{WORKFLOWS}/", json={"workflow": FORM}))["workflow_id"])
            case "preset":
                return str((await self._request("POST", f"{PRESETS}/", data={"data": PRESET}))["id"])
            case "webhook":
                hook = {"url": "http://127.0.0.1:9/", "description": SECRET}
                return str((await self._request("POST", f"{HOOKS}/", json=hook))["webhook_id"])
            case "prompt":
                prompt = {"name": f"n{self._count}", "content": SECRET}
                return str((await self._request("POST", f"{PROMPTS}/", json=prompt))["id"])
        raise AssertionError(f"the table names an unknown thing: {kind}")

    async def _zip(self) -> str:
        """Have a zip file made, and wait until it can be fetched."""
        names = {"image_names": [await self.thing("image")]}
        name = str((await self._request("POST", f"{IMAGES}/download", json=names))["bulk_download_item_name"])
        async with asyncio.timeout(20):
            while not self.app.services.get(ImageDownloads).ready.contains(name):
                await asyncio.sleep(0.01)
        return name

    async def state(self) -> None:
        """Have the owner keep something of their own that has no id."""
        await self._request("POST", f"{STATE}/set_by_key?key=k", json=SECRET)
        await self._request("POST", "/api/v1/recall/default", json={"positive_prompt": SECRET})
        for name in ("comfy.settings.json", "secret.json"):
            await self._request("POST", f"/userdata/{name}", json={"secret": SECRET, SECRET: 1})

    async def _request(self, method: str, path: str, **send: Any) -> Any:
        answer = await self.clients["owner"].request(method, path, **send)
        assert answer.is_success, (method, path, answer.text)
        return answer.json()

    async def things(self, row: Row) -> dict[str, str]:
        """Make all that a row's request names."""
        kinds = set(PLACEHOLDER.findall(row.request + repr(row.send.get("json"))))
        return {kind: await self.thing(kind) for kind in kinds if not kind.startswith("form")}

    def substitute(self, value: Any, things: dict[str, str]) -> Any:
        """Put the things where their places are."""
        match value:
            case dict():
                return {key: self.substitute(item, things) for key, item in value.items()}
            case list():
                return [self.substitute(item, things) for item in value]
            case tuple():
                return tuple(self.substitute(item, things) for item in value)
            case b"<png>":
                return self._png
            case "{item}":
                return int(things["item"])
            case "{form}":
                return FORM
            case "{form with id}":
                return FORM | {"id": things["workflow"]}
            case str():
                return PLACEHOLDER.sub(lambda match: things[match[1]], value) if "{" in value else value
        return value

    async def ask(self, who: str, row: Row, things: dict[str, str]) -> httpx.Response:
        """Send a row's request; what others than the owner send does not have the owner's word in it."""
        method, path = self.substitute(row.request, things).split(" ")
        sent = self.substitute(row.send, things)
        return await self.clients[who].request(method, path, **(sent if who == "owner" else _without_secret(sent)))

    async def seen(self, things: dict[str, str]) -> list[Any]:
        """Return how the owner sees the things."""
        paths = [f"{WATCHED[kind]}{name}" for kind, name in things.items() if kind in WATCHED]
        answers = [await self.clients["owner"].get(path) for path in paths]
        return [(answer.status_code, _steady(answer.json())) for answer in answers]


def _without_secret(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_secret(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_without_secret(item) for item in value)
        case str():
            return value.replace(SECRET, "n")
    return value


def _steady(body: Any) -> Any:
    """Leave out what is new in each answer."""
    return {key: value for key, value in body.items() if not key.endswith("_url") and key != "image"}


@asynccontextmanager
async def serve_world(settings: Settings) -> AsyncIterator[World]:
    """Serve the application without workers and lend a client to each of the four."""
    changes = {"multiuser": True, "allow_private_webhook_urls": True}
    app = create_app(settings.model_copy(update=changes), worker_command=None)
    world = World(app, encode_video((32, 32), 2))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        for who in ("owner", "other", "admin", "nobody"):
            headers = {}
            if who != "nobody":
                world.accounts[who] = await account(app.services.get(Resources).database, who, is_admin=who == "admin")
                headers = world.accounts[who].headers
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
            world.clients[who] = await stack.enter_async_context(client)
        yield world
