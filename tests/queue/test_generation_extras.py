"""Refiners, reference images and VAEs in a request for images, and whose images it may name."""

from typing import Any

import pytest
from pydantic import ValidationError

from invokeclone.graph.invocations import registry
from invokeclone.graph.recipes import InitImage
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.errors import ImageNotFound, ImageNotYours
from invokeclone.kit.sql.database import Database
from invokeclone.queue import generation
from invokeclone.queue.generation import GenerationRequest
from invokeclone.tables import images
from invokeclone.users.current import SYSTEM, User
from tests.queue.test_generation import add, resolve_request
from tests.queue.test_generation_controls import edges_of, graph_of

OTHER = dict.fromkeys(("prediction_type", "variant"))
ADAPTER: dict[str, Any] = OTHER | {"type": "ip_adapter", "format": "checkpoint", "repo_variant": None}
ENCODER: dict[str, Any] = OTHER | {"type": "clip_vision", "base": "any"}
VAE: dict[str, Any] = OTHER | {"type": "vae"}


@pytest.fixture(scope="module", autouse=True)
def nodes() -> None:
    registry.discover()


@pytest.fixture
async def library(database: Database) -> Database:
    await add(database, "xl", base="sdxl")
    await add(database, "ref", base="sdxl-refiner")
    await add(database, "ip-adapter_sdxl", base="sdxl", **ADAPTER)
    await add(database, "ip_adapter_sdxl_image_encoder", **ENCODER)
    return database


async def test_refiner_defaults_to_the_settings_of_the_run(library: Database) -> None:
    async def settings(**refiner: Any) -> tuple[Any, ...]:
        run = {"steps": 9, "cfg_scale": 3.0, "scheduler": "ddim"}
        graph = await graph_of(library, model="xl", refiner={"model": "ref"} | refiner, **run)
        node, recorded = graph["nodes"]["refiner_denoise_latents"], graph["nodes"]["core_metadata"]
        values = tuple(node[name] for name in ("steps", "cfg_scale", "scheduler", "denoising_start"))
        names = ("refiner_steps", "refiner_cfg_scale", "refiner_scheduler", "refiner_start")
        assert values == tuple(recorded[name] for name in names)
        return values

    assert await settings() == (9, 3.0, "ddim", 0.8)
    assert await settings(steps=20, cfg_scale=7.0, scheduler="euler_a", start=0.5) == (20, 7.0, "euler_a", 0.5)
    await add(library, "ref2", base="sdxl-refiner", default_settings={"steps": 40, "scheduler": "heun"})
    assert await settings(model="ref2") == (40, 3.0, "heun", 0.8)
    assert await settings(model="ref2", steps=5) == (5, 3.0, "heun", 0.8)


async def test_refiner_continues_latents_without_adding_noise(library: Database) -> None:
    scores = {"positive_aesthetic_score": 7.0, "negative_aesthetic_score": 1.5}
    graph = await graph_of(library, model="xl", refiner={"model": "ref", **scores}, seamless=True)
    edges = edges_of(graph)
    assert {
        ("denoise_latents.latents", "refiner_denoise_latents.latents"),
        ("refiner_denoise_latents.latents", "canvas_output.latents"),
        ("positive_prompt.value", "refiner_pos_cond.style"),
        ("refiner_seamless.unet", "refiner_denoise_latents.unet"),
    } <= edges
    assert not any(end == "refiner_denoise_latents.noise" for _, end in edges)
    assert not any(source.startswith("refiner_seamless.vae") for source, _ in edges)
    nodes = graph["nodes"]
    assert [nodes[f"refiner_{side}_cond"]["aesthetic_score"] for side in ("pos", "neg")] == [7.0, 1.5]


async def test_controls_and_references_do_not_apply_to_the_refiner(library: Database) -> None:
    reference = {"image": "a.png", "method": "style", "weight": -0.5, "begin": 0.2}
    graph = await graph_of(library, model="xl", refiner={"model": "ref"}, reference_images=[reference])
    edges = edges_of(graph)
    assert ("denoise_latents_ip_adapter_collect.collection", "denoise_latents.ip_adapter") in edges
    assert not any(end == "refiner_denoise_latents.ip_adapter" for _, end in edges)
    node = graph["nodes"]["denoise_latents_ip_adapter_0"]
    assert (node["method"], node["weight"], node["begin_step_percent"]) == ("style", -0.5, 0.2)
    assert node["clip_vision_model"] == "ViT-G", "by the adapter's name"
    (recorded,) = graph["nodes"]["core_metadata"]["ipAdapters"]
    assert (recorded["image"]["image_name"], recorded["method"]) == ("a.png", "style")


async def test_a_folder_of_an_ip_adapter_names_its_image_encoder(library: Database) -> None:
    folder = ADAPTER | {"format": "invokeai", "image_encoder_model_id": "InvokeAI/my_encoder"}
    await add(library, "folder", base="sdxl", **folder)
    request = {"model": "xl", "reference_images": [{"image": "a.png", "model": "folder", "image_encoder": "ViT-G"}]}
    with pytest.raises(
        generation.ExtraModelNotInstalled, match="my_encoder is not installed: install one with this name"
    ):
        await resolve_request(library, **request)
    await add(library, "my_encoder", **ENCODER)
    assert (await resolve_request(library, **request)).settings.references[0].image_encoder == "ViT-H", (
        "which is overruled"
    )


async def test_unsupported_extras_are_refused(library: Database) -> None:
    await add(library, "m")
    await add(library, "vae", base="sdxl", **VAE)
    with pytest.raises(generation.InvalidGeneration, match="sdxl-refiner models do not support reference images"):
        await resolve_request(library, model="ref", reference_images=[{"image": "a.png"}])
    with pytest.raises(generation.InvalidGeneration, match="sdxl-refiner models do not support refiners"):
        await resolve_request(library, model="ref", refiner={"model": "ref"})
    with pytest.raises(generation.InvalidGeneration, match="begin must be less than end"):
        await resolve_request(library, model="xl", reference_images=[{"image": "a.png", "begin": 0.5, "end": 0.5}])
    with pytest.raises(generation.InvalidGeneration, match="the VAE vae is for sdxl models, m is sd-1"):
        await resolve_request(library, model="m", vae="vae")
    settings = (await resolve_request(library, model="xl", vae="VAE")).settings
    assert settings.vae is not None
    assert settings.vae["key"] == "vae"
    for wrong in (
        {"refiner": {"model": "ref", "start": 1.5}},
        {"refiner": {"model": "ref", "positive_aesthetic_score": 11}},
        {"refiner": {"model": "ref", "scheduler": "nonsense"}},
        {"reference_images": [{"image": "a.png", "weight": 2.5}]},
        {"reference_images": [{"image": "a.png", "method": "nonsense"}]},
        {"reference_images": [{"image": "a.png"}] * 17},
    ):
        with pytest.raises(ValidationError):
            await resolve_request(library, model="xl", **wrong)


async def test_incompatible_vae_of_the_model_settings_is_ignored(library: Database) -> None:
    await add(library, "vae", base="sd-1", **VAE)
    await add(library, "xl2", base="sdxl", default_settings={"vae": "vae"})
    assert (await resolve_request(library, model="xl2")).settings.vae is None


async def test_images_must_exist_and_be_readable_by_the_user(library: Database) -> None:
    row = {"image_origin": "internal", "image_category": ImageCategory.USER.value, "width": 8, "height": 8}
    row |= dict.fromkeys(("created_at", "updated_at"), "2026-01-01 00:00:00.000")
    async with library.write() as connection:
        for name, owner in (("mine.png", "me"), ("hers.png", "her")):
            await connection.execute(images.insert().values(image_name=name, user_id=owner, **row))

    async def check(user: User, **request: Any) -> None:
        async with library.read() as connection:
            await generation.require_images(connection, user, GenerationRequest(prompt="a cat", **request))

    me = User(user_id="me", is_admin=False)
    await check(me)
    await check(me, init_image=InitImage("mine.png"), reference_images=[{"image": "mine.png", "mask": "mine.png"}])
    for image in ({"image": "hers.png"}, {"image": "mine.png", "mask": "hers.png"}):
        with pytest.raises(ImageNotYours, match=r"hers\.png"):
            await check(me, reference_images=[image])
    with pytest.raises(ImageNotFound, match=r"nothing\.png"):
        await check(me, controls=[{"model": "m", "image": "nothing.png"}])
    await check(SYSTEM, init_image=InitImage("hers.png"))
