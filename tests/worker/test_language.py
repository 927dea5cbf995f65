"""Requests for text, with tiny models that lie where their records say."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from invokeclone.kit.times import now
from invokeclone.models.errors import UnknownModelException
from invokeclone.tables import models
from invokeclone.worker.backend.errors import NotOnThisWorker
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.requests import Requests
from tests.applications import encode_image, sample_image
from tests.conftest import RecordedEvents
from tests.language_models import write_llava, write_text_llm
from tests.worker.joined import Link, join


async def register(tools: Tools, key: str, model_type: str, path: Path) -> None:
    record = {"key": key, "hash": key, "base": "any", "type": model_type, "format": "diffusers", "name": key}
    record |= {"path": str(path), "source": str(path), "file_size": 1}
    config = json.dumps({**record, "source_type": "path", "repo_variant": ""})
    async with tools.resources.database.write() as connection:
        await connection.execute(insert(models).values(**record, config=config, created_at=now(), updated_at=now()))


async def request_text(tools: Tools, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await Requests(tools).answer("write_text", body)
    await asyncio.sleep(0)
    return answer


async def test_text_generation_reports_progress(tools: Tools, events: RecordedEvents, tmp_path: Path) -> None:
    await register(tools, "llm", "text_llm", write_text_llm(tmp_path / "llm"))
    body = {"model_key": "llm", "prompt": "a cat", "system_prompt": None, "max_tokens": 5, "seed": 3}
    answer = await request_text(tools, **body, task_id="t", user_id="alice")
    assert (answer["error"], isinstance(answer["text"], str)) == (None, True)
    assert set(events.names()) == {"llm_task_progress"}
    payloads = [event.model_dump() for event in events.sent]
    assert {(payload["task_id"], payload["user_id"]) for payload in payloads} == {("t", "alice")}
    assert payloads[0]["phase"] == "loading_model"
    assert {payload["phase"] for payload in payloads[1:]} == {"generating"}
    assert all(payload["total_tokens"] == 5 for payload in payloads[1:])
    count = len(events.sent)
    assert (await request_text(tools, **body))["text"] == answer["text"]
    assert len(events.sent) == count, "nothing is told of a task without an id"
    assert (await request_text(tools, **{**body, "system_prompt": "be odd"}))["text"] != answer["text"]


async def test_image_is_described(tools: Tools, tmp_path: Path) -> None:
    await register(tools, "llava", "llava_onevision", write_llava(tmp_path / "llava"))
    tools.resources.storage.write("images/x.png", encode_image(sample_image("RGBA")))
    answer = await request_text(tools, model_key="llava", image="images/x.png", instruction="say")
    assert answer["error"] is None
    assert answer["text"]


async def test_errors_are_returned_in_the_answer(tools: Tools, tmp_path: Path) -> None:
    await register(tools, "gone", "text_llm", tmp_path / "nothing")
    body = {"prompt": "a", "system_prompt": None, "max_tokens": 5, "seed": 3}
    answer = await request_text(tools, **body, model_key="gone")
    assert answer["text"] is None
    assert "are missing from" in answer["error"]
    with pytest.raises(UnknownModelException):
        await request_text(tools, **body, model_key="unknown")


async def test_a_joined_worker_fetches_the_model(tools: Tools, link: Link, tmp_path: Path) -> None:
    await register(tools, "llm", "text_llm", write_text_llm(tmp_path / "llm"))
    joined = join(tools, link, tmp_path / "joined")
    body = {"model_key": "llm", "prompt": "a cat", "system_prompt": None, "max_tokens": 5, "seed": 3}
    assert await request_text(joined, **body) == await request_text(tools, **body)
    assert (tools.resources.settings.model_cache_path).is_dir()
    answer = await request_text(joined, model_key="llm", image=str(tmp_path / "x.png"), instruction="say")
    assert "on the server's machine" in answer["error"]
    with pytest.raises(NotOnThisWorker):
        await Requests(joined).answer("convert_model", {})
