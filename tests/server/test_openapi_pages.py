"""The pages that show the OpenAPI document."""

import httpx
import pytest

from invokeclone.kit.settings import Settings
from invokeclone.server.app import create_app


@pytest.mark.parametrize(("base_url", "address"), [(None, "/openapi.json"), ("/invoke", "/invoke/openapi.json")])
async def test_the_pages_lead_to_the_document(settings: Settings, base_url: str | None, address: str) -> None:
    app = create_app(settings.model_copy(update={"base_url": base_url}), worker_command=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in ("/docs", "/redoc"):
            answer = await client.get(f"{base_url or ''}{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert f"{address}'" in answer.text or f'{address}"' in answer.text
