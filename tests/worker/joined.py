"""A worker without database and files of the server, whose operations reach a dispatcher in the same process, as JSON."""

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
from sqlalchemy import delete, insert, update

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.models.records.served_files import ServedModels
from invokeclone.queue.rows import ClaimedItem
from invokeclone.tables import session_queue
from invokeclone.worker.backend.dispatch import Dispatcher
from invokeclone.worker.backend.errors import raise_status
from invokeclone.worker.backend.model_cache import MODEL_FILE, MODEL_FILES, FetchedModels
from invokeclone.worker.backend.operations import Holder
from invokeclone.worker.backend.remote import RemoteBackend
from invokeclone.worker.backend.transfers import IMAGES, ImageTransfers
from invokeclone.worker.interfaces.tools import Tools

WORKER = "joined-1"
_IMAGES = re.compile(IMAGES.format(item_id=r"(\d+)"))


class Claims:
    """Rows of items that the joined worker holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, item: ClaimedItem) -> ClaimedItem:
        """Write the row of an item that was not claimed from the queue."""
        values = {name: getattr(item, name) for name in session_queue.c.keys() if hasattr(item, name)}  # noqa: SIM118
        async with self._database.write() as connection:
            await connection.execute(delete(session_queue).where(session_queue.c.item_id == item.item_id))
            await connection.execute(insert(session_queue).values({**values, "worker_id": WORKER}))
        return item

    async def lose(self) -> None:
        """Let another worker claim the items."""
        async with self._database.write() as connection:
            await connection.execute(update(session_queue).values(worker_id="another", fence=session_queue.c.fence + 1))


class NoDatabase:
    """Fails every use."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a joined worker used the database: {name}")


class Detached(Resources):
    """The settings of other resources, without their database."""

    def __init__(self, resources: Resources) -> None:
        self.original = resources
        self.database, self.events, self.maintenance = NoDatabase(), resources.events, False  # type: ignore[assignment]

    @property  # type: ignore[override]
    def settings(self) -> Settings:
        return self.original.settings


class Link:
    """What the connection to a server does, without one; cut it with `cuts`, the number of transfers that break off."""

    def __init__(self, resources: Resources) -> None:
        self.dispatcher = Dispatcher(resources)
        self.models = ServedModels(resources)
        self.calls: list[str] = []
        self.requests: list[tuple[str, int]] = []
        self.cuts = 0

    async def call(self, method: str, message: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(method)
        message = orjson.loads(orjson.dumps(message))
        holder = Holder(WORKER, message["item_id"], message["fence"])
        response = await self.dispatcher.dispatch(method, message["arguments"], holder)
        return dict(orjson.loads(orjson.dumps(response)))

    @contextlib.asynccontextmanager
    async def get(self, path: str, start: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        self.requests.append((path, start))
        file = await self._answer(self._file(path))

        async def chunks() -> AsyncIterator[bytes]:
            data = file.read_bytes()[start:]
            if self.cuts:
                self.cuts -= 1
                yield data[: len(data) // 2]
                raise ConnectionError("cut")
            yield data

        yield chunks()

    async def get_json(self, path: str) -> Any:
        self.requests.append((path, 0))
        address, query = self._split(path)
        assert address == MODEL_FILES
        return orjson.loads((await self._answer(self.models.listing(query["key"]))).model_dump_json())

    async def post(self, path: str, body: bytes) -> Any:
        record = await self._answer(self.dispatcher.receive_image(body, self._holder(path)))
        if self.cuts:
            self.cuts -= 1
            raise ConnectionError("cut")
        return orjson.loads(record.model_dump_json())

    async def _file(self, path: str) -> Path:
        address, query = self._split(path)
        if address == MODEL_FILE:
            return await self.models.path(query["key"], query["path"], query.get("version"))
        thumbnail = query["thumbnail"] == "true"
        file = await self.dispatcher.image_file(query["name"], self._holder(path), thumbnail=thumbnail)
        assert file.path
        return file.path

    @staticmethod
    def _split(path: str) -> tuple[str, dict[str, str]]:
        parts = urlsplit(path)
        return parts.path, dict(parse_qsl(parts.query))

    def _holder(self, path: str) -> Holder:
        address, query = self._split(path)
        match = _IMAGES.fullmatch(address)
        assert match
        return Holder(WORKER, int(match[1]), int(query["fence"]))

    @staticmethod
    async def _answer(work: Any) -> Any:
        """Return the result of a route, or raise the error of its response."""
        try:
            return await work
        except InvokeCloneError as error:
            raise_status(error.status, str(error))


def join(tools: Tools, link: Link, folder: Path, settings: Settings | None = None) -> Tools:
    """Return the tools of a worker that has only the link."""
    settings = settings or tools.resources.settings
    fetched = FetchedModels(link, settings)
    backend = RemoteBackend(link.call, ImageTransfers(link, settings, folder / "images", 1_000_000), fetched.files)
    return replace(tools, resources=Detached(tools.resources), remote=backend)
