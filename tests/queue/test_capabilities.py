"""The route that says what a model can do, compared with what generation requests accept."""

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import httpx
import pytest

from invokeclone.graph.recipes import recipes
from invokeclone.graph.vocabulary.architectures import Capabilities
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.queue.generation import GenerationRequest, InvalidGeneration
from invokeclone.queue.generation.api import router
from invokeclone.queue.generation.capabilities import describe
from tests.applications import serving
from tests.shims.test_automatic1111_adapters import library as library


@pytest.fixture
async def client(library: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(library, router) as client:
        yield client


async def get(client: httpx.AsyncClient, key: str, status: int = 200) -> Any:
    answer = await client.get(f"/api/v2/models/i/{key}/capabilities")
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_capabilities_of_a_model(client: httpx.AsyncClient) -> None:
    described = await get(client, "m")
    assert (described["key"], described["name"], described["base"], described["guidance"]) == ("m", "m", "sd-1", "cfg")
    assert {"euler", "ddim", "dpmpp_2m_k"} <= set(described["schedulers"])
    assert described["features"]["text_to_image"]
    for name in ("negative_prompt", "image_to_image", "inpaint", "lora", "control", "hires_fix", "seamless"):
        assert described["features"][name], name
    assert not described["features"]["refiner"]
    defaults = described["defaults"]
    assert (defaults["width"], defaults["height"], defaults["vae"]) == (512, 512, None)
    assert defaults["scheduler"] in described["schedulers"]
    limits = described["limits"]
    assert (limits["side_multiple"], limits["steps"]) == (8, {"minimum": 1.0, "maximum": 1000.0})
    assert limits["side"] == {"minimum": 64.0, "maximum": 8192.0}
    assert (limits["loras"], limits["controls"], limits["reference_images"]) == (32, 16, 16)
    assert (limits["images"], limits["prompt_characters"]) == (Limits().request_images, 50_000)
    assert (await get(client, "xl"))["refiner"] == "sdxl-refiner"


async def test_capabilities_of_all_models_start_with_the_default_one(
    client: httpx.AsyncClient, library: Resources
) -> None:
    answer = await client.get("/api/v2/models/capabilities")
    described = answer.json()["models"]
    keys = [model["key"] for model in described]
    assert {"m", "xl"} <= set(keys)
    assert described == [await get(client, key) for key in keys]
    async with library.database.read() as connection:
        assert keys[0] == (await generation.find_model(connection, None)).key
        refiners = [config.key for config in await models.search(connection) if config.base == "sdxl-refiner"]
    assert refiners
    assert not {*refiners, "ip-adapter_sd15"} & set(keys)


@pytest.mark.parametrize(
    ("base", "vae_base"), [("sd-1", "sd-1"), ("flux2", "flux2"), ("z-image", "flux"), ("cogview4", None)]
)
async def test_the_base_of_vaes_that_requests_accept(library: Resources, base: str, vae_base: str | None) -> None:
    async with library.database.read() as connection:
        config = (await models.get(connection, "m")).model_copy(update={"base": base})
    assert describe(config, Limits()).vae_base == vae_base


async def test_record_settings_are_defaults(client: httpx.AsyncClient, library: Resources) -> None:
    async with library.database.write() as connection:
        config = await models.get(connection, "m")
        settings = {"width": 256, "height": 320, "steps": 7, "cfg_scale": 2.5, "scheduler": "ddim"}
        await models.delete(connection, "m")
        await models.add(connection, registry.parse(config.model_dump(mode="json") | {"default_settings": settings}))
    defaults = (await get(client, "m"))["defaults"]
    assert {name: defaults[name] for name in settings} == settings
    async with library.database.read() as connection:
        resolved = (await generation.resolve(connection, GenerationRequest(prompt="a", model="m"))).settings
    assert (resolved.width, resolved.height, resolved.steps, resolved.guidance) == (256, 320, 7, 2.5)


async def test_other_models_have_none(client: httpx.AsyncClient) -> None:
    assert "ip_adapter: only main models" in (await get(client, "ip-adapter_sd15", 400))["detail"]
    assert "no model with key nobody" in (await get(client, "nobody", 404))["detail"]


async def test_models_of_families_without_a_recipe_have_none(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invokeclone.graph.recipes.registry.recipes", dict)
    assert "not supported yet" in (await get(client, "m", 424))["detail"]


@pytest.mark.parametrize("base", sorted(recipes()))
async def test_features_are_those_that_requests_are_checked_for(library: Resources, base: str) -> None:
    """Each capability is a feature, and a feature that a model lacks is refused."""
    async with library.database.read() as connection:
        config = (await models.get(connection, "m")).model_copy(update={"base": base})
    features = describe(config, Limits()).features
    capabilities = {field.name for field in fields(Capabilities)} - {"guidance", "schedulers"}
    assert set(features) == capabilities | {"text_to_image", "negative_prompt"}
    for name in capabilities - {"partial_denoise"}:
        if features[name]:
            generation.require_capability(config, name)
        else:
            with pytest.raises(InvalidGeneration, match="do not support"):
                generation.require_capability(config, name)
