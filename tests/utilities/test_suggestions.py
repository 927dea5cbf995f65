"""Longer prompts and images in words, over HTTP, with workers that only pretend."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service as images
from invokeclone.kit.errors import Unavailable
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import now
from invokeclone.kit.workers import Workers
from invokeclone.server.http import bodies, errors
from invokeclone.tables import models, users
from invokeclone.users.current import User, current_user
from invokeclone.utilities.api import router
from tests.applications import sample_image
from tests.conftest import RecordedEvents

EXPAND = "/api/v1/utilities/expand-prompt"
DESCRIBE = "/api/v1/utilities/image-to-prompt"


class Pretending:
    """Workers that answer what they are told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: Any = {"text": "a longer prompt", "error": None}

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float, *, startup_s: float = 0.0) -> Any:
        self.asked.append((name, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def workers() -> Pretending:
    return Pretending()


@asynccontextmanager
async def serving(
    resources: Resources, workers: Pretending, user: User | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    app = Application()
    app.services.add(Resources, resources)
    app.services.add(Workers, workers)
    if user is not None:
        app.dependency_overrides[current_user] = lambda: user
    errors.install(app)
    app.include_router(bodies.read_strictly(router))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def client(resources: Resources, workers: Pretending) -> AsyncIterator[httpx.AsyncClient]:
    async with resources.database.write() as connection:
        for key, model_type in (("llm", "text_llm"), ("llava", "llava_onevision")):
            record: dict[str, Any] = {
                "key": key,
                "hash": key,
                "base": "any",
                "type": model_type,
                "format": "diffusers",
                "name": key,
            }
            record |= {"path": key, "source": key, "file_size": 1}
            config = json.dumps({**record, "source_type": "path", "repo_variant": ""})
            await connection.execute(insert(models).values(**record, config=config, created_at=now(), updated_at=now()))
    async with serving(resources, workers) as lent:
        yield lent


@pytest.fixture
async def image_name(resources: Resources) -> str:
    saved = await images.save(resources, sample_image(), category=ImageCategory.GENERAL, origin=ResourceOrigin.INTERNAL)
    return saved.image_name


async def test_prompt_is_expanded(client: httpx.AsyncClient, workers: Pretending, events: RecordedEvents) -> None:
    body = {"prompt": "a cat", "model_key": "llm", "max_tokens": 4, "seed": 1, "system_prompt": "be short"}
    answer = await client.post(EXPAND, json=body)
    assert answer.json() == {"expanded_prompt": "a longer prompt", "seed": 1, "error": None}
    assert workers.asked == [("write_text", {**body, "task_id": None, "user_id": "system"})]
    assert events.sent == []


async def test_missing_seed_is_generated_and_returned(client: httpx.AsyncClient, workers: Pretending) -> None:
    answer = (await client.post(EXPAND, json={"prompt": "a", "model_key": "llm"})).json()
    assert 0 <= answer["seed"] < 2**32
    assert workers.asked[0][1]["seed"] == answer["seed"]
    assert (workers.asked[0][1]["max_tokens"], workers.asked[0][1]["system_prompt"]) == (300, None)


async def test_image_is_described(
    client: httpx.AsyncClient, workers: Pretending, resources: Resources, image_name: str
) -> None:
    answer = await client.post(DESCRIBE, json={"image_name": image_name, "model_key": "llava", "instruction": "say"})
    assert answer.json() == {"prompt": "a longer prompt", "error": None}
    ((name, body),) = workers.asked
    assert (name, body["instruction"]) == ("write_text", "say")
    assert body["image"] == (await images.file(resources, image_name)).key


async def test_task_completion_emits_an_event(
    client: httpx.AsyncClient, workers: Pretending, events: RecordedEvents
) -> None:
    body = {"prompt": "a", "model_key": "llm", "task_id": "t"}
    assert (await client.post(EXPAND, json=body)).status_code == 200
    workers.answer = {"text": None, "error": "no memory"}
    assert (await client.post(EXPAND, json=body)).status_code == 500
    payloads = [(event.name, event.model_dump(exclude={"timestamp"})) for event in events.sent]
    assert payloads == [
        ("llm_task_complete", {"task_id": "t", "user_id": "system"}),
        ("llm_task_error", {"task_id": "t", "user_id": "system", "error": "no memory"}),
    ]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (EXPAND, {"prompt": "a", "model_key": "none"}, 404),
        (EXPAND, {"prompt": "a", "model_key": "llava"}, 422),
        (EXPAND, {"prompt": "a", "model_key": "llm", "max_tokens": 0}, 422),
        (EXPAND, {"prompt": "a", "model_key": "llm", "max_tokens": 2049}, 422),
        (EXPAND, {"prompt": "a", "model_key": "llm", "seed": 2**32}, 422),
        (EXPAND, {"model_key": "llm"}, 422),
        (DESCRIBE, {"image_name": "none.png", "model_key": "none"}, 404),
        (DESCRIBE, {"image_name": "none.png", "model_key": "llm"}, 422),
        (DESCRIBE, {"image_name": "none.png", "model_key": "llava"}, 404),
        (DESCRIBE, {"model_key": "llava"}, 422),
    ],
)
async def test_invalid_requests_are_refused(
    client: httpx.AsyncClient, workers: Pretending, path: str, body: dict[str, Any], status: int
) -> None:
    """A missing image is 404, where the reference answers 500."""
    assert (await client.post(path, json=body)).status_code == status
    assert workers.asked == []


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (Unavailable("no worker is ready"), 503),
        (TimeoutError(), 500),
        ({"text": None, "error": "RuntimeError: out of memory"}, 500),
    ],
)
async def test_model_failure_is_reported(
    client: httpx.AsyncClient, workers: Pretending, wrong: Any, status: int
) -> None:
    workers.answer = wrong
    answer = await client.post(EXPAND, json={"prompt": "a", "model_key": "llm"})
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.usefixtures("client")
async def test_image_of_another_user_is_refused(resources: Resources, workers: Pretending, image_name: str) -> None:
    async with resources.database.write() as connection:
        await connection.execute(
            insert(users).values(user_id="alice", email="a@x.y", created_at=now(), updated_at=now())
        )
    async with serving(resources, workers, User(user_id="alice")) as client:
        answer = await client.post(DESCRIBE, json={"image_name": image_name, "model_key": "llava"})
    assert answer.status_code == 403
    assert workers.asked == []
