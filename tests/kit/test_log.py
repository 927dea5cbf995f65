"""Lines of the log: fields of `extra` and of the context, as JSON and as text."""

import asyncio
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from invokeclone.kit import log

Lines = Callable[[], list[str]]


@pytest.fixture
def set_up() -> Iterator[Callable[..., Lines]]:
    logger = logging.getLogger(log.ROOT)
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers = []

    def act(style: str = "plain", **options: Any) -> Lines:
        stream = io.StringIO()
        log.set_up("info", style, ["console"], stream, **options)
        return lambda: stream.getvalue().splitlines()

    yield act
    logger.handlers, logger.level, logger.propagate = before


def records(lines: Lines) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in lines()]


def test_json_lines_contain_the_record_fields(set_up: Callable[..., Lines]) -> None:
    lines = set_up(as_json=True)
    log.get("queue").warning("item %s\nis odd", 5, extra={"action": "run_item", "item_id": 5, "seconds": 1.5})
    (line,) = records(lines)
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "invokeclone.queue", "item 5\nis odd")
    assert (line["action"], line["item_id"], line["seconds"]) == ("run_item", 5, 1.5)
    assert line["time"].endswith("Z")
    assert set(line) == {"time", "level", "logger", "message", "process", "action", "item_id", "seconds"}


def test_a_traceback_is_in_its_json_line(set_up: Callable[..., Lines]) -> None:
    lines = set_up(as_json=True)
    log.get("worker").error("it broke", exc_info=ValueError("odd"))
    (line,) = records(lines)
    assert line["message"] == "it broke"
    assert line["exception"] == "ValueError: odd"


@pytest.mark.parametrize("value", ["\ud800", b"\xff", float("nan"), {1: object()}, [sys], {(1, 2): 3}])
def test_anything_can_be_logged_as_json(set_up: Callable[..., Lines], value: Any) -> None:
    lines = set_up(as_json=True)
    log.get("worker").info("it says %s", value, extra={"odd": value})
    (line,) = records(lines)
    assert line["message"].startswith("it says ")


def test_context_fields_are_on_every_line_and_line_fields_win(set_up: Callable[..., Lines]) -> None:
    lines = set_up(as_json=True)
    with log.fields(device="cpu", action="a"):
        with log.fields(action="b", item_id=1):
            log.get("engine").info("x")
            log.get("engine").info("x", extra={"action": "c"})
        log.get("engine").info("x")
    log.get("engine").info("x")
    values = [(line.get("action"), line.get("device"), line.get("item_id")) for line in records(lines)]
    assert values == [("b", "cpu", 1), ("c", "cpu", 1), ("a", "cpu", None), (None, None, None)]


def test_process_fields_are_on_lines_of_every_thread(set_up: Callable[..., Lines]) -> None:
    lines = set_up(as_json=True)
    log.set_process_fields(device="cpu", action="a")
    try:
        with log.fields(action="b"):
            thread = threading.Thread(target=log.get("worker").info, args=("x",))
            thread.start()
            thread.join()
            log.get("worker").info("x")
    finally:
        log.set_process_fields()
    assert [(line["device"], line["action"]) for line in records(lines)] == [("cpu", "a"), ("cpu", "b")]


async def test_fields_propagate_to_tasks_and_other_threads_loops(set_up: Callable[..., Lines]) -> None:
    lines = set_up(as_json=True)
    loop = asyncio.get_running_loop()

    async def act() -> None:
        log.get("queue").info("x")

    def from_a_thread() -> None:
        with log.fields(item_id=7):
            asyncio.run_coroutine_threadsafe(act(), loop).result(10)

    await loop.run_in_executor(None, from_a_thread)
    await act()
    assert [line.get("item_id") for line in records(lines)] == [7, None]


@pytest.mark.parametrize(
    ("message", "fields", "text"),
    [
        ("it broke", {}, "it broke"),
        ("it broke", {"action": "run_item", "item_id": 5}, "it broke [item_id=5]"),
        ("item 5 broke", {"item_id": 5, "device": "cuda:0"}, "item 5 broke [device=cuda:0]"),
        ("item 55 broke", {"item_id": 5}, "item 55 broke [item_id=5]"),
        ("it broke", {"item_id": 5, "user_id": "system", "batch_id": "b"}, "it broke [item_id=5]"),
        ("it broke", {"user_id": "u", "seconds": 3}, "it broke [user_id=u]"),
        ("the worker for cuda:0 ends", {"device": "cuda:0"}, "the worker for cuda:0 ends"),
    ],
)
def test_text_lines_append_fields_missing_from_the_message(
    set_up: Callable[..., Lines], message: str, fields: dict[str, Any], text: str
) -> None:
    lines = set_up("legacy")
    log.get("worker").info(message, extra=fields)
    assert lines() == [f">> {text}"]


def test_text_fields_follow_the_first_line(set_up: Callable[..., Lines]) -> None:
    lines = set_up("legacy")
    log.get("worker").info("figures\nrow", extra={"item_id": 5})
    assert lines() == [">> figures [item_id=5]", "row"]


def test_two_handlers_write_the_same_lines(set_up: Callable[..., Lines], tmp_path: Any) -> None:
    stream = io.StringIO()
    log.set_up("info", "legacy", ["console", f"file={tmp_path / 'log'}"], stream)
    log.get("worker").info("it broke", extra={"item_id": 5})
    log.set_up("info", "legacy", ["console"], stream)
    assert stream.getvalue() == (tmp_path / "log").read_text() == ">> it broke [item_id=5]\n"


def test_names_of_files_that_are_no_text_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    log.get("x").warning("cannot read %s", os.fsdecode(b"a\xff.png"))
    assert "cannot read a\\udcff.png" in caplog.text
    caplog.text.encode("utf-8")
