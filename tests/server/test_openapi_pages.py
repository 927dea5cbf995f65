"""The pages that show the OpenAPI document."""

import gc

import httpx
import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app


@pytest.mark.parametrize(("base_url", "address"), [(None, "/openapi.json"), ("/invoke", "/invoke/openapi.json")])
async def test_documentation_pages_link_to_the_openapi_document(
    settings: Settings, base_url: str | None, address: str
) -> None:
    app = create_app(settings.model_copy(update={"base_url": base_url}), worker_command=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in ("/docs", "/redoc"):
            answer = await client.get(f"{base_url or ''}{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert f"{address}'" in answer.text or f'{address}"' in answer.text


async def test_garbage_collection_is_disabled_while_building_the_document(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection stops every thread, the event loop's too; afterwards it is as it was, whatever has happened."""
    app = create_app(settings, worker_command=None)
    gc_states = []

    def build() -> dict[str, str]:
        gc_states.append(gc.isenabled())
        if len(gc_states) == 1:
            raise ZeroDivisionError
        return {"openapi": "3.1.0"}

    monkeypatch.setattr(app, "openapi", build)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/openapi.json")).status_code == 500
        assert gc.isenabled()
        assert (await client.get("/openapi.json")).json() == {"openapi": "3.1.0"}
    assert gc_states == [False, False]
    assert gc.isenabled()
