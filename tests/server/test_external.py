"""External image services: keys go in, are kept in a file of their own, and never come out."""

import os
import stat
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from sqlalchemy import insert, select

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import SettingsError, load_settings
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import now
from invokeclone.tables import models
from invokeclone.users.current import User, current_user
from tests.server.test_app import running

BASE = "/api/v1/app/external_providers"
NAMES = ["alibabacloud", "gemini", "openai", "seedream"]
SECRET = "k-secret-123"


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    async with running(settings) as app_and_client:
        yield app_and_client


@pytest.fixture
def client(served: tuple[FastAPI, httpx.AsyncClient]) -> httpx.AsyncClient:
    return served[1]


def keys_file(settings: Settings) -> dict[str, Any]:
    return yaml.safe_load((settings.root / "api_keys.yaml").read_text())


async def configure(client: httpx.AsyncClient, **changes: str) -> dict[str, Any]:
    answer = await client.post(f"{BASE}/config/openai", json=changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_nothing_is_configured_at_first(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{BASE}/status")).json() == [
        {"provider_id": name, "configured": False, "message": None} for name in NAMES
    ]
    assert (await client.get(f"{BASE}/config")).json() == [
        {"provider_id": name, "api_key_configured": False, "base_url": None} for name in NAMES
    ]


async def test_api_key_file_is_private_and_the_key_is_never_returned(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    assert await configure(client, api_key=f" {SECRET} ", base_url="http://127.0.0.1:9/v1") == {
        "provider_id": "openai",
        "api_key_configured": True,
        "base_url": "http://127.0.0.1:9/v1",
    }
    file = settings.root / "api_keys.yaml"
    assert keys_file(settings) == {
        "external_openai_api_key": SECRET,
        "external_openai_base_url": "http://127.0.0.1:9/v1",
    }
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    for address in (f"{BASE}/status", f"{BASE}/config", "/api/v1/app/runtime_config"):
        answer = await client.get(address)
        assert answer.status_code == 200
        assert SECRET not in answer.text
    assert (await client.get(f"{BASE}/status")).json()[2]["configured"] is True
    read, unknown = load_settings(settings.root, {})
    assert (read.external_openai_api_key, unknown) == (SECRET, [])


async def test_absent_fields_stay_and_empty_text_removes_a_value(client: httpx.AsyncClient, settings: Settings) -> None:
    await configure(client, api_key=SECRET)
    assert (await configure(client, base_url="https://x.test/v1"))["api_key_configured"] is True
    assert (await configure(client, base_url=""))["base_url"] is None
    assert keys_file(settings) == {"external_openai_api_key": SECRET}


async def test_a_reset_forgets_both(client: httpx.AsyncClient, settings: Settings) -> None:
    await configure(client, api_key=SECRET, base_url="https://x.test")
    answer = await client.delete(f"{BASE}/config/openai")
    assert answer.json() == {"provider_id": "openai", "api_key_configured": False, "base_url": None}
    assert keys_file(settings) == {}
    assert (await client.delete(f"{BASE}/config/openai")).status_code == 200


@pytest.mark.parametrize(
    ("provider", "body", "status"),
    [
        ("openai", {}, 400),
        ("openai", {"api_key": None}, 400),
        ("nope", {"api_key": "k"}, 404),
        ("openai", {"api_key": "a\nb"}, 422),
        ("openai", {"base_url": "file:///etc/passwd"}, 422),
        ("openai", {"base_url": "http://"}, 422),
    ],
)
async def test_invalid_configurations_are_refused(
    client: httpx.AsyncClient, settings: Settings, provider: str, body: dict[str, Any], status: int
) -> None:
    assert (await client.post(f"{BASE}/config/{provider}", json=body)).status_code == status
    assert not (settings.root / "api_keys.yaml").exists()


async def test_an_unknown_service_can_not_be_reset(client: httpx.AsyncClient) -> None:
    assert (await client.delete(f"{BASE}/config/nope")).status_code == 404


async def test_removing_a_key_removes_the_models_of_its_service(served: tuple[FastAPI, httpx.AsyncClient]) -> None:
    app, client = served
    await configure(client, api_key=SECRET)
    database = app.services.get(Resources).database
    rows = [("a", "external://openai/one"), ("b", "external://gemini/two"), ("c", "external://openai-like/three")]
    async with database.write() as connection:
        for key, source in rows:
            await connection.execute(
                insert(models).values(
                    key=key,
                    hash="",
                    base="external",
                    type="external_image_generator",
                    format="external_api",
                    name=key,
                    path=source,
                    source=source,
                    config="{}",
                    created_at=now(),
                    updated_at=now(),
                )
            )

    async def left() -> set[str]:
        async with database.read() as connection:
            return set(await connection.scalars(select(models.c.key).where(models.c.base == "external")))

    await configure(client, base_url="")
    assert await left() == {"a", "b", "c"}
    await configure(client, api_key="")
    assert await left() == {"b", "c"}


async def test_a_key_in_the_settings_file_stays_hidden_after_a_reset(settings: Settings) -> None:
    settings.root.mkdir(parents=True, exist_ok=True)
    (settings.root / "invokeai.yaml").write_text("external_gemini_api_key: old\n")
    async with running(load_settings(settings.root, {})[0]) as (_app, client):
        assert (await client.get(f"{BASE}/status")).json()[1]["configured"] is True
        assert (await client.delete(f"{BASE}/config/gemini")).json()["api_key_configured"] is False
    assert load_settings(settings.root, {})[0].external_gemini_api_key is None


async def test_keys_are_not_written_to_the_settings_file(client: httpx.AsyncClient, settings: Settings) -> None:
    await configure(client, api_key=SECRET)
    await client.patch("/api/v1/app/runtime_config", json={"max_queue_history": 3})
    assert SECRET not in (settings.root / "invokeai.yaml").read_text()
    assert (await client.get(f"{BASE}/status")).json()[2]["configured"] is True


async def test_invalid_keys_file_is_not_overwritten(client: httpx.AsyncClient, settings: Settings) -> None:
    (settings.root / "api_keys.yaml").write_text("- a list\n")
    assert (await client.post(f"{BASE}/config/openai", json={"api_key": "k"})).status_code == 409
    assert (settings.root / "api_keys.yaml").read_text() == "- a list\n"
    with pytest.raises(SettingsError):
        load_settings(settings.root, {})


async def test_other_settings_in_the_keys_file_are_ignored_with_a_warning(settings: Settings) -> None:
    settings.root.mkdir(parents=True, exist_ok=True)
    (settings.root / "api_keys.yaml").write_text("port: 1\nexternal_openai_api_key: k\n")
    read, warnings = load_settings(settings.root, {})
    assert (read.port, read.external_openai_api_key) == (9090, "k")
    assert len(warnings) == 1
    assert "port" in warnings[0]


async def test_only_admins_read_and_change_the_configuration(served: tuple[FastAPI, httpx.AsyncClient]) -> None:
    app, client = served
    app.dependency_overrides[current_user] = lambda: User(user_id="alice")
    assert (await client.get(f"{BASE}/status")).status_code == 200
    for method, path in (("GET", "config"), ("POST", "config/openai"), ("DELETE", "config/openai")):
        assert (await client.request(method, f"{BASE}/{path}", json={"api_key": "k"})).status_code == 403
