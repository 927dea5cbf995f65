"""Nodes that read files of the server's machine, run for an ordinary account and for an administrator."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

import invokeclone.nodes.data.prompts  # noqa: F401  (registers the node)
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.runner import SessionRunner
from tests.accounts import account


@pytest.fixture
def shared(tools: Tools) -> Tools:
    settings = tools.resources.settings.model_copy(update={"multiuser": True})
    (settings.root / "prompts").mkdir(parents=True)
    (settings.root / "prompts" / "mine.txt").write_text("a cat\n", encoding="utf-8")
    return replace(tools, resources=replace(tools.resources, settings=settings))


async def prompts_of(tools: Tools, make: Any, path: object, owner: str) -> Outcome:
    node = {"type": "prompt_from_file", "file_path": str(path)}
    item = make.item({"one": node}, user_id=owner)
    return await asyncio.to_thread(SessionRunner(tools, make_context).run, item, threading.Event())


async def test_regular_users_read_only_permitted_folders(shared: Tools, make: Any) -> None:
    alice = await account(shared.resources.database, "alice")
    assert (await prompts_of(shared, make, "mine.txt", alice.user_id)).status == "completed"
    for path in (shared.resources.settings.database_path, "/etc/passwd", "../databases/invokeai.db", "/no/such/file"):
        outcome = await prompts_of(shared, make, path, alice.user_id)
        assert outcome.status == "failed"
        assert "allowed_file_folders" in str(outcome.error)


async def test_an_administrator_and_the_single_user_read_any_text_file(
    shared: Tools, tools: Tools, make: Any, tmp_path: Path
) -> None:
    (tmp_path / "other.txt").write_text("a dog\n", encoding="utf-8")
    admin = await account(shared.resources.database, "anna", is_admin=True)
    assert (await prompts_of(shared, make, tmp_path / "other.txt", admin.user_id)).status == "completed"
    outcome = await prompts_of(tools, make, tmp_path / "other.txt", "system")
    assert outcome.status == "completed"
    results = orjson.loads(f'{{"graph":{{}}{outcome.session_json}')["results"]
    assert [result["collection"] for result in results.values()] == [["a dog"]]
