"""Dynamic prompts over HTTP, also such as are written to take forever or all memory."""

import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.server.http import bodies, errors
from invokeclone.utilities.api import router
from invokeclone.utilities.prompts import PromptExpander

ADDRESS = "/api/v1/utilities/dynamicprompts"
HOSTILE = "".join("${v" + f"{i}=" + (f"${{v{i - 1}}}" * 10 if i else "x" * 10) + "}" for i in range(9)) + "${v8}"


@pytest.fixture
async def expander() -> AsyncIterator[PromptExpander]:
    prompt_expander = PromptExpander(timeout_s=2)
    yield prompt_expander
    await prompt_expander.close()


@pytest.fixture
async def client(resources: Resources, expander: PromptExpander) -> AsyncIterator[httpx.AsyncClient]:
    app = Application()
    app.services.add(Resources, resources)
    app.services.add(PromptExpander, expander)
    errors.install(app)
    app.include_router(APIRouter())
    app.include_router(bodies.read_strictly(router))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test"
    ) as http_client:
        yield http_client


async def expand_prompt(client: httpx.AsyncClient, prompt: str, **options: Any) -> tuple[list[str], str | None]:
    answer = await client.post(ADDRESS, json={"prompt": prompt, **options})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"prompts", "error"}
    return body["prompts"], body["error"]


async def test_all_combinations_in_order(client: httpx.AsyncClient) -> None:
    assert await expand_prompt(client, "a {red|blue} {cat|dog}") == (
        ["a red cat", "a red dog", "a blue cat", "a blue dog"],
        None,
    )
    assert await expand_prompt(client, "{2$$a|b|c}", max_prompts=2) == (["a,b", "a,c"], None)
    assert await expand_prompt(client, "${x={a|b}}${x}!") == (["a!", "b!"], None)


async def test_random_prompts_have_the_requested_count_and_are_repeatable(client: httpx.AsyncClient) -> None:
    options = {"combinatorial": False, "seed": 7, "max_prompts": 20}
    first, error = await expand_prompt(client, "{a|b|0.1::c}", **options)
    assert (len(first), error) == (20, None)
    assert set(first) <= {"a", "b", "c"}
    assert (await expand_prompt(client, "{a|b|0.1::c}", **options))[0] == first
    assert (await expand_prompt(client, "{a|b|0.1::c}", **{**options, "seed": 8}))[0] != first


@pytest.mark.parametrize("combinatorial", [True, False])
async def test_an_empty_pattern_makes_one_empty_prompt(client: httpx.AsyncClient, combinatorial: bool) -> None:
    assert await expand_prompt(client, "", combinatorial=combinatorial) == ([""], None)


@pytest.mark.parametrize("combinatorial", [True, False])
async def test_unknown_wildcard_is_left_unchanged(client: httpx.AsyncClient, combinatorial: bool) -> None:
    """As in the reference: as many copies as asked for, and no error."""
    prompts, error = await expand_prompt(client, "a __missing__ x", combinatorial=combinatorial, max_prompts=3)
    assert (prompts, error) == (["a __missing__ x"] * 3, None)


@pytest.mark.parametrize("pattern", ["{a|b", "${x}"])
async def test_invalid_pattern_is_returned_with_an_error(client: httpx.AsyncClient, pattern: str) -> None:
    prompts, error = await expand_prompt(client, pattern)
    assert prompts == [pattern]
    assert error


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": "a", "max_prompts": 0},
        {"prompt": "a", "max_prompts": 10_001},
        {"prompt": "a", "seed": "x"},
        {"prompt": 1},
    ],
)
async def test_invalid_requests_are_422(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await client.post(ADDRESS, json=body)).status_code == 422


async def test_invalid_unicode_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(ADDRESS, content=b'{"prompt": "\\ud800"}', headers={"content-type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "pattern",
    [
        HOSTILE,
        "{" * 5000,
    ],
    ids=["variables of variables", "deep"],
)
async def test_hostile_pattern_is_aborted_and_later_patterns_work(client: httpx.AsyncClient, pattern: str) -> None:
    began = time.thread_time()
    prompts, error = await expand_prompt(client, pattern)
    assert time.thread_time() - began < 1, "the event loop's own thread expands"
    assert prompts == [pattern]
    assert error
    assert await expand_prompt(client, "{a|b}") == (["a", "b"], None)


@pytest.mark.parametrize("combinatorial", [True, False])
async def test_nested_counts_terminate(client: httpx.AsyncClient, combinatorial: bool) -> None:
    pattern = "a|b|c"
    for _level in range(5):
        pattern = "{1000$$" + pattern + "|" + pattern + "}"
    prompts, error = await expand_prompt(client, pattern, combinatorial=combinatorial, max_prompts=10_000)
    assert prompts
    assert error is None or prompts == [pattern]
    assert await expand_prompt(client, "{a|b}") == (["a", "b"], None)


async def test_too_much_text_is_refused(client: httpx.AsyncClient) -> None:
    pattern = "${a={" + "x" * 40_000 + "|y}}${a}" + "{0|1|2|3|4|5|6|7|8|9}" * 4
    prompts, error = await expand_prompt(client, pattern, max_prompts=10_000)
    assert prompts == [pattern]
    assert error


async def test_a_process_that_has_ended_is_replaced(client: httpx.AsyncClient, expander: PromptExpander) -> None:
    assert await expand_prompt(client, "{a|b}") == (["a", "b"], None)
    pid = expander._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert await expand_prompt(client, "{a|b}") == (["a", "b"], None)
