"""The whole application: its routes answer, its errors have one form, and torch stays out of its process."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.server import page
from invokeclone.server.app import create_app
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.webui import WebUI

FAKE = (sys.executable, "-S", str(Path(__file__).with_name("fake_worker.py")), "good")
HEAVY = ("torch", "diffusers", "transformers", "cv2", "numpy", "av", "alembic", "jwt", "argon2", "obstore")


@asynccontextmanager
async def running(
    settings: Settings, worker: tuple[str, ...] | None = None
) -> AsyncIterator[tuple[Application, httpx.AsyncClient]]:
    app = create_app(settings, worker_command=worker)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield app, client


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings) as (_app, http_client):
        yield http_client


async def test_version(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/app/version")).json() == {"version": "6.14.2", "highlights": None}


async def test_a_database_that_the_command_has_migrated_is_used_as_it_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(settings)
    await database.migrate()
    await database.close()
    monkeypatch.setattr(type(database), "migrate", lambda _database: pytest.fail("it is migrated again"))
    app = create_app(settings, worker_command=None, migrated=database)
    async with app.router.lifespan_context(app):
        assert app.services.get(Resources).database is database
        assert await database.fetch("SELECT count(*) FROM session_queue", ()) == [(0,)]


@pytest.mark.parametrize("path", ["/health", "/api/v1/health"])
async def test_health_is_served_without_searching_the_routes(settings: Settings, path: str) -> None:
    async with running(settings) as (app, client):

        async def search(*_connection: Any) -> None:
            pytest.fail("all routes are tried one by one")

        app.router.middleware_stack._search = search  # type: ignore[attr-defined]
        assert (await client.get(path)).json() == {"status": "ok"}


async def test_unknown_paths_are_json_404(client: httpx.AsyncClient) -> None:
    for path in ("/api/v1/nope", "/nope", "/page/nope.js", "/page/../app.py", "/page/%2e%2e/app.py"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), path


async def test_the_page_may_show_images_at_presigned_urls(tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(page.router(WebUI(tmp_path), "https://media.example", multiuser=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        policy = (await client.get("/")).headers["content-security-policy"]
    directives = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    for name in ("img-src", "media-src", "connect-src"):
        assert directives[name].endswith(" https://media.example")
    assert directives["default-src"] == "'self'"


async def test_page_and_static_files_are_served(client: httpx.AsyncClient) -> None:
    index = await client.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in index.headers["content-security-policy"]
    for name in ("style.css", "app.js", "icon.svg"):
        path = re.search(rf'"(page/\w+/{name})"', index.text)
        assert path
        kept = await client.get(f"/{path[1]}")
        assert (kept.status_code, "immutable" in kept.headers["cache-control"]) == (200, True)
        of_another_version = await client.get(f"/page/0/{name}")
        assert of_another_version.headers["cache-control"] == "no-cache"
        answer = await client.get(f"/page/{name}")
        assert (answer.status_code, answer.content) == (200, kept.content)
        again = await client.get(f"/page/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_the_page_with_all_its_files_is_at_most_60_kb_compressed(client: httpx.AsyncClient) -> None:
    names = sorted(set(re.findall(r'"page/\w+/([\w.]+)"', (await client.get("/")).text)))
    assert names == ["app.js", "icon.svg", "style.css"]
    sizes = [
        int((await client.get(path, headers={"accept-encoding": "gzip"})).headers["content-length"])
        for path in ("/", *(f"/page/{name}" for name in names))
    ]
    assert sum(sizes) <= 60_000


async def test_openapi_is_complete_sorted_and_cached(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    document = answer.json()
    schemas = list(document["components"]["schemas"])
    assert schemas == sorted(schemas)
    for name in (
        "BatchEnqueuedEvent",
        "QueueItemStatusChangedEvent",
        "AnyModelConfig",
        "AppVersion",
        "ImagesDeletedEvent",
    ):
        assert (name in schemas) == (name != "ImagesDeletedEvent"), name
    unzipped = await client.get("/openapi.json", headers={"accept-encoding": "identity"})
    assert unzipped.content == answer.content
    assert "content-encoding" not in unzipped.headers


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the OpenAPI document, made once: it takes seconds."""
    return create_app(Settings(root=tmp_path_factory.mktemp("document")), worker_command=None).openapi()


def test_every_openapi_reference_resolves(document: dict[str, Any]) -> None:
    text = json.dumps(document, separators=(",", ":"))
    referred = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert len(referred) > 100
    assert referred <= set(document["components"]["schemas"])


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    operation_ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(operation_ids) == len(set(operation_ids))


async def test_app_deps(client: httpx.AsyncClient) -> None:
    versions = (await client.get("/api/v1/app/app_deps")).json()
    assert {"fastapi", "CUDA"} <= set(versions)
    assert [name.lower() for name in versions] == sorted(name.lower() for name in versions)


async def test_runtime_config_masks_secrets(settings: Settings) -> None:
    tokens = [{"url_regex": "x", "token": "hidden"}]
    settings = Settings(root=settings.root, external_openai_api_key="hidden", remote_api_tokens=tokens)
    async with running(settings) as (_app, client):
        answer = await client.get("/api/v1/app/runtime_config")
    assert "hidden" not in answer.text
    assert answer.json()["config"]["external_openai_api_key"] == "**********"
    assert set(answer.json()["set_fields"]) == {"external_openai_api_key", "remote_api_tokens"}
    assert answer.json()["config"]["external_gemini_api_key"] is None


async def test_runtime_config_changes_are_saved(client: httpx.AsyncClient, settings: Settings) -> None:
    change = {"image_subfolder_strategy": "date", "max_queue_history": 5}
    answer = await client.patch("/api/v1/app/runtime_config", json=change)
    assert answer.json()["config"]["image_subfolder_strategy"] == "date"
    again = (await client.get("/api/v1/app/runtime_config")).json()
    assert again["config"]["max_queue_history"] == 5
    file = yaml.safe_load((settings.root / "invokeai.yaml").read_text())
    assert file == {"schema_version": "4.0.3", **change}
    left_out = await client.patch("/api/v1/app/runtime_config", json={"image_subfolder_strategy": None})
    assert left_out.json()["config"]["image_subfolder_strategy"] == "date", "null is as good as absent: no change"


@pytest.mark.parametrize(
    "change",
    [
        {"image_subfolder_strategy": "heap"},
        {"max_queue_history": -1},
        {"generation_devices": ["cuda:9"]},
        {"generation_devices": 7},
    ],
)
async def test_invalid_runtime_config_is_refused(
    client: httpx.AsyncClient, change: dict[str, Any], settings: Settings
) -> None:
    assert (await client.patch("/api/v1/app/runtime_config", json=change)).status_code == 422
    assert not (settings.root / "invokeai.yaml").exists()


async def test_logging(client: httpx.AsyncClient) -> None:
    before = (await client.get("/api/v1/app/logging")).json()
    assert (await client.post("/api/v1/app/logging", json=30)).json() == 30
    assert (await client.get("/api/v1/app/logging")).json() == 30
    assert (await client.post("/api/v1/app/logging", json=31)).status_code == 422
    await client.post("/api/v1/app/logging", json=before)


async def test_invocation_cache_without_a_worker(client: httpx.AsyncClient) -> None:
    status = (await client.get("/api/v1/app/invocation_cache/status")).json()
    assert status == {"size": 0, "hits": 0, "misses": 0, "enabled": True, "max_size": 512}
    for method, path in (("DELETE", ""), ("PUT", "/enable"), ("PUT", "/disable")):
        answer = await client.request(method, f"/api/v1/app/invocation_cache{path}")
        assert (answer.status_code, answer.json()) == (200, None)


async def test_devices_and_patchmatch(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/app/generation_device_options")).json()[-1] == {"device": "cpu", "name": "CPU"}
    assert (await client.get("/api/v1/app/patchmatch_status")).json() is True
    assert set((await client.get("/api/v1/app/config")).json()) == {
        "infill_methods",
        "upscaling_methods",
        "nsfw_methods",
        "watermarking_methods",
    }


async def test_outpainting_has_an_infill_by_default(client: httpx.AsyncClient) -> None:
    """The official UI fills with patchmatch where the status says so and with LaMa otherwise; 6.8.1 reads a list."""
    assert (await client.get("/api/v1/app/patchmatch_status")).json() is True
    methods = (await client.get("/api/v1/app/config")).json()["infill_methods"]
    assert "patchmatch" in methods
    nodes = {"color": "infill_rgba"}
    for method in methods:
        node = {"id": "n", "type": nodes.get(method, f"infill_{method}"), "image": {"image_name": "x.png"}}
        batch = {"graph": {"nodes": {"n": node}, "edges": []}}
        assert (await client.post("/api/v1/queue/default/enqueue_batch", json={"batch": batch})).status_code in (
            200,
            201,
        )


async def test_answers_are_compressed_unless_switched_off(settings: Settings) -> None:
    async with running(settings) as (_app, client):
        assert (await client.get("/api/v1/app/app_deps")).headers["content-encoding"] == "gzip"
        assert (await client.get("/page/app.js")).headers["content-encoding"] == "gzip"
        assert "content-encoding" not in (await client.get("/api/v1/app/version")).headers
    async with running(settings.model_copy(update={"http_compression_level": 0})) as (_app, client):
        assert "content-encoding" not in (await client.get("/api/v1/app/app_deps")).headers


async def test_cors_follows_the_settings(settings: Settings) -> None:
    settings = settings.model_copy(update={"allow_origins": ["https://friend.example"]})
    async with running(settings) as (_app, client):
        for origin, allowed in (("https://friend.example", "https://friend.example"), ("https://evil.example", None)):
            answer = await client.get("/api/v1/app/version", headers={"origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed


async def test_base_url_with_and_without_the_prefix(settings: Settings) -> None:
    async with running(settings.model_copy(update={"base_url": "/invoke"})) as (_app, client):
        for prefix in ("", "/invoke"):
            assert (await client.get(f"{prefix}/api/v1/app/version")).status_code == 200
            assert (await client.get(f"{prefix}/page/app.js")).status_code == 200
            assert (await client.get(f"{prefix}/ws/socket.io/?EIO=4&transport=polling")).status_code == 200


async def test_memory_database_leaves_no_files(settings: Settings) -> None:
    before = settings.database_path.read_bytes()
    async with running(settings.model_copy(update={"use_memory_db": True})) as (app, client):
        assert (await client.get("/api/v1/queue/default/status")).status_code == 200
        path = app.services.get(Resources).settings.database_path
        assert path.exists()
    assert not path.exists()
    assert settings.database_path.read_bytes() == before


async def test_startup_cancels_running_items_and_starts_a_worker(settings: Settings) -> None:
    async with running(settings, FAKE) as (app, _client):
        assert await app.services.get(Supervisor).ready(30)
        pid = app.services.get(Supervisor).pids[0]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_server_imports_neither_torch_nor_other_heavy_packages() -> None:
    code = (
        "import sys, pathlib, tempfile; from invokeclone.kit.config.settings import Settings; "
        "from invokeclone.server.app import create_app; "
        "create_app(Settings(root=pathlib.Path(tempfile.mkdtemp()))).openapi(); "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert process.stdout.strip() == "[]"


async def test_serve_stops_its_worker_on_exit_and_when_killed(settings: Settings, tmp_path: Path) -> None:
    """SIGTERM: graceful, exit 0. SIGKILL: the worker sees the end of its pipe and goes."""
    for number, status in ((signal.SIGTERM, 0), (signal.SIGKILL, -9)):
        log = tmp_path / f"log-{number}"
        with log.open("wb") as out:
            server = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "invokeclone", "serve", "--root", str(settings.root), "--port", "29400"),
                stdout=out,
                stderr=out,
                env={**os.environ, "INVOKEAI_DEVICE": "cpu"},
            )
            async with asyncio.timeout(120):
                while b"worker for cpu is ready (process " not in log.read_bytes():
                    assert server.returncode is None, log.read_text()
                    await asyncio.sleep(0.05)
                worker = int(log.read_text().split("is ready (process ")[1].split(")")[0])
                server.send_signal(number)
                assert await server.wait() == status, log.read_text()
                while Path(f"/proc/{worker}").exists() and "zombie" not in Path(f"/proc/{worker}/status").read_text():
                    await asyncio.sleep(0.05)
        assert "invokeclone is at http://127.0.0.1:" in log.read_text()
        assert "Traceback" not in log.read_text()
