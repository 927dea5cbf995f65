"""A full queue and a server without a running worker: 429 and 503 with `Retry-After`, in the form of each API."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app
from invokeclone.server.supervision.supervisor import Supervisor
from tests.server_process import Server
from tests.shims.comfyui import text_to_image
from tests.shims.test_gemini import GENERATE, PREDICT, STREAM

PROMPT = {"contents": [{"parts": [{"text": "a"}]}]}
REQUESTS: dict[str, tuple[dict[str, Any], Callable[[Any], str]]] = {
    "/v1/images/generations": ({"prompt": "a", "size": "64x64"}, lambda body: body["error"]["message"]),
    PREDICT: ({"instances": {"prompt": "a"}}, lambda body: body["error"]["message"]),
    GENERATE: (PROMPT, lambda body: body["error"]["message"]),
    STREAM: (PROMPT, lambda body: body["error"]["message"]),
    "/sdapi/v1/txt2img": ({"prompt": "a", "width": 64, "height": 64}, lambda body: body["detail"]),
    "/prompt": ({"prompt": text_to_image()}, lambda body: body["error"]["message"]),
    "/api/v1/queue/default/enqueue_prompt": ({"prompt": "a"}, lambda body: body["detail"]),
}
CODES = {
    429: {"/v1/images/generations": "rate_limit_exceeded", PREDICT: "RESOURCE_EXHAUSTED"},
    503: {"/v1/images/generations": "service_unavailable", PREDICT: "UNAVAILABLE"},
}


def check(answer: httpx.Response, path: str, status: int, seconds: str, text: str) -> None:
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, seconds), answer.text
    assert text in REQUESTS[path][1](answer.json())
    assert "x-should-retry" not in answer.headers
    if code := CODES[status].get(path):
        assert code in (answer.json()["error"].get("code"), answer.json()["error"].get("status"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start a server whose queue is full: it takes one item, and is paused."""
    running = Server(tmp_path_factory.mktemp("full") / "root").start(INVOKEAI_MAX_QUEUE_SIZE="1")
    running.wait_for(lambda: running.client.get("/api/v2/models/").json()["models"], "the embedded model")
    running.client.put("/api/v1/queue/default/processor/pause").raise_for_status()
    running.client.post("/api/v1/queue/default/enqueue_prompt", json={"prompt": "a"}).raise_for_status()
    yield running
    running.client.close()
    running.stop()


@pytest.mark.parametrize("path", REQUESTS)
def test_full_queue_is_429_with_retry_after(full: Server, path: str) -> None:
    queue = "/api/v1/queue/default/status"
    before = full.client.get(queue).json()["queue"]
    check(full.client.post(path, json=REQUESTS[path][0]), path, 429, "30", "the queue is full")
    after = full.client.get(queue).json()["queue"]
    assert (after["pending"], after["total"] - after["canceled"]) == (before["pending"], 1)


def test_openai_client_waits_and_tries_again(full: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the response says; meanwhile the queue is emptied."""
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        full.client.put("/api/v1/queue/default/clear").raise_for_status()
        full.client.put("/api/v1/queue/default/processor/resume").raise_for_status()

    class Clock:
        def __getattr__(self, name: str) -> Any:
            return sleep if name == "sleep" else getattr(time, name)

    monkeypatch.setattr(openai._base_client, "time", Clock())
    with openai.OpenAI(base_url=f"{full.url}/v1", api_key="any", max_retries=1) as client:
        answer = client.images.generate(prompt="a cat", size="64x64", quality="low")
    assert answer.data[0].b64_json
    assert waited == [30.0]


@pytest.fixture
async def without_workers(settings: Settings, migrated: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application whose worker processes end at once."""
    settings.database_path.parent.mkdir(parents=True, exist_ok=True)
    settings.database_path.write_bytes(migrated.read_bytes())
    app = create_app(settings, worker_command=(sys.executable, "-c", "import sys; sys.exit(5)"))
    async with app.router.lifespan_context(app):
        supervisor = app.services.get(Supervisor)
        while supervisor.workers[0].failures < 2:
            await asyncio.sleep(0.01)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def test_without_a_running_worker_it_is_503_with_retry_after(without_workers: httpx.AsyncClient) -> None:
    for path, (body, _) in REQUESTS.items():
        answer = await without_workers.post(path, json=body)
        check(answer, path, 503, "10", "no worker is running: the worker process for cpu ended unexpectedly")
    assert (await without_workers.get("/v1/models")).status_code == 200
    status = (await without_workers.get("/api/v1/queue/default/status")).json()["queue"]
    assert status["total"] == 0
