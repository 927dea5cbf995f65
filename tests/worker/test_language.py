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
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.requests import Requests
from tests.conftest import RecordedEvents
from tests.language_models import write_llava, write_text_llm
from tests.rooms import packed, picture


async def register(tools: Tools, key: str, model_type: str, path: Path) -> None:
    record = {"key": key, "hash": key, "base": "any", "type": model_type, "format": "diffusers", "name": key}
    record |= {"path": str(path), "source": str(path), "file_size": 1}
    config = json.dumps({**record, "source_type": "path", "repo_variant": ""})
    async with tools.resources.database.write() as connection:
        await connection.execute(insert(models).values(**record, config=config, created_at=now(), updated_at=now()))


async def asked(tools: Tools, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await Requests(tools).answer("write_text", body)
    await asyncio.sleep(0)
    return answer


async def test_text_with_progress(tools: Tools, events: RecordedEvents, tmp_path: Path) -> None:
    await register(tools, "llm", "text_llm", write_text_llm(tmp_path / "llm"))
    body = {"model_key": "llm", "prompt": "a cat", "system_prompt": None, "max_tokens": 5, "seed": 3}
    answer = await asked(tools, **body, task_id="t", user_id="alice")
    assert (answer["error"], isinstance(answer["text"], str)) == (None, True)
    assert set(events.names()) == {"llm_task_progress"}
    told = [event.model_dump() for event in events.sent]
    assert {(one["task_id"], one["user_id"]) for one in told} == {("t", "alice")}
    assert told[0]["phase"] == "loading_model"
    assert {one["phase"] for one in told[1:]} == {"generating"}
    assert all(one["total_tokens"] == 5 for one in told[1:])
    count = len(events.sent)
    assert (await asked(tools, **body))["text"] == answer["text"]
    assert len(events.sent) == count, "nothing is told of a task without an id"
    assert (await asked(tools, **{**body, "system_prompt": "be odd"}))["text"] != answer["text"]


async def test_a_picture_in_words(tools: Tools, tmp_path: Path) -> None:
    await register(tools, "llava", "llava_onevision", write_llava(tmp_path / "llava"))
    image = tmp_path / "x.png"
    image.write_bytes(packed(picture("RGBA")))
    answer = await asked(tools, model_key="llava", image=str(image), instruction="say")
    assert answer["error"] is None
    assert answer["text"]


async def test_what_goes_wrong_is_the_answer(tools: Tools, tmp_path: Path) -> None:
    await register(tools, "gone", "text_llm", tmp_path / "nothing")
    body = {"prompt": "a", "system_prompt": None, "max_tokens": 5, "seed": 3}
    answer = await asked(tools, **body, model_key="gone")
    assert answer["text"] is None
    assert "not at" in answer["error"]
    with pytest.raises(UnknownModelException):
        await asked(tools, **body, model_key="unknown")
