"""ControlNet units in AUTOMATIC1111's requests."""

import base64
from typing import Any

import pytest
from PIL import Image

from invokeclone.graph.invocations import registry
from invokeclone.images import service
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry as model_registry
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.shims.automatic1111 import controlnet, infotext
from invokeclone.shims.automatic1111.plan import make_plan
from invokeclone.shims.automatic1111.schemas import Generate, ImageToImage, TextToImage
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.users.current import SYSTEM
from tests.shims.conftest import png
from tests.shims.test_automatic1111_parts import COMMON

EDGES = base64.b64encode(png(Image.new("RGB", (16, 8), "white"))).decode()
INITIAL = base64.b64encode(png(Image.new("RGB", (24, 8), "red"))).decode()


@pytest.fixture
async def library(resources: Resources) -> Resources:
    """Return a main model, a ControlNet for it and one for another base, and a T2I-Adapter."""
    kinds = (
        ("m", "main", "sd-1", {}),
        ("control_v11p_sd15_canny", "controlnet", "sd-1", {}),
        ("other", "controlnet", "sdxl", {}),
        ("sketch", "t2i_adapter", "sd-1", {"format": "diffusers", "repo_variant": ""}),
    )
    for key, kind, base, fields in kinds:
        record = COMMON | {"key": key, "name": key, "path": f"/some/{key}.safetensors", "type": kind, "base": base}
        record |= {"hash": f"blake3:{key}"} | fields
        if kind != "main":
            record = {name: value for name, value in record.items() if name not in ("variant", "prediction_type")}
        async with resources.database.write() as connection:
            await models.add(connection, model_registry.parse(record))
    return resources


def script(*units: Any) -> dict[str, Any]:
    return {"alwayson_scripts": {"ControlNet": {"args": list(units)}}}


def unit(**fields: Any) -> dict[str, Any]:
    return {"model": "control_v11p_sd15_canny [d14c016b]", "image": EDGES, **fields}


async def resolve(library: Resources, request: Generate) -> generation.ResolvedRequest:
    plan = await make_plan(library, SYSTEM, request)
    return await controlnet.with_images(library, SYSTEM, plan.resolved, request)


async def size_of(library: Resources, name: str) -> tuple[int, int]:
    with Image.open((await service.file(library, name)).source()) as image:
        return image.size


async def test_units_become_control_models_with_stored_images(library: Resources) -> None:
    first = unit(weight=0.5, guidance_start=0.1, guidance_end=0.6, control_mode=2, resize_mode=0, lowvram=True)
    second = unit(model="SKETCH", module="none", image={"image": INITIAL, "mask": None}, resize_mode="Resize and Fill")
    request = TextToImage(**script(first, second, unit(enabled=False, model="nothing")))
    controls = (await resolve(library, request)).settings.controls
    assert [control.model["key"] for control in controls] == ["control_v11p_sd15_canny", "sketch"]
    edges, sketch = controls
    assert (edges.weight, edges.begin, edges.end, edges.mode, edges.resize) == (
        0.5, 0.1, 0.6, "more_control", "just_resize",
    )  # fmt: skip
    assert (sketch.weight, sketch.begin, sketch.end, sketch.mode, sketch.resize) == (
        1.0, 0.0, 1.0, "balanced", "fill_resize",
    )  # fmt: skip
    assert await size_of(library, edges.image) == (16, 8)
    assert await size_of(library, sketch.image) == (24, 8)


@pytest.mark.parametrize(
    ("fields", "mode", "resize"),
    [
        ({}, "balanced", "crop_resize"),
        ({"control_mode": "My prompt is more important", "resize_mode": 1}, "more_prompt", "crop_resize"),
        ({"control_mode": "ControlNet is more important", "resize_mode": "Just Resize"}, "more_control", "just_resize"),
        ({"control_mode": "0", "resize_mode": "Envelope (Outer Fit)"}, "balanced", "fill_resize"),
    ],
)
async def test_modes_by_their_names_and_numbers(library: Resources, fields: Any, mode: str, resize: str) -> None:
    plan = await make_plan(library, SYSTEM, TextToImage(**script(unit(**fields))))
    (control,) = plan.resolved.settings.controls
    assert (control.mode, control.resize) == (mode, resize)


async def test_a_unit_without_an_image_follows_the_initial_image(library: Resources) -> None:
    units = unit(image=None), unit(image=None, input_image=EDGES)
    request = ImageToImage(init_images=[INITIAL], **script(*units))
    first, second = (await resolve(library, request)).settings.controls
    assert await size_of(library, first.image) == (24, 8)
    assert await size_of(library, second.image) == (16, 8)


async def test_graph_is_valid_and_infotext_names_the_units(library: Resources) -> None:
    resolved = await resolve(library, TextToImage(**script(unit(weight=0.5))))
    registry.discover()
    nodes = resolved.batch(origin="t").graph.nodes
    assert nodes["denoise_latents_controlnet_0"].control_weight == 0.5
    text = infotext.format_infotext("a", "", {"Steps": 4, "Seed": 1, **controlnet.description(resolved)})
    described = infotext.parse(text)["ControlNet 0"]
    assert "Model: control_v11p_sd15_canny, Weight: 0.5" in described
    assert "Resize Mode: Crop And Resize, Control Mode: Balanced" in described


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model": None}, "the model is missing"),
        ({"model": "None"}, "the model is missing"),
        ({"model": "nothing"}, "nothing"),
        ({"model": "other"}, "other is for sdxl models"),
        ({"module": "openpose"}, "preprocessor 'openpose' is not supported: .* one of canny"),
        ({"image": None}, "the image is missing"),
        ({"image": "aGVsbG8="}, "supported format"),
        ({"image": "http://127.0.0.1:1/a.png"}, "not fetched"),
        ({"mask": EDGES}, "masks are not supported"),
        ({"image": {"image": EDGES, "mask": EDGES}}, "masks are not supported"),
        ({"weight": 3}, "unit 0: weight"),
        ({"guidance_start": 2}, "unit 0: guidance_start"),
        ({"guidance_start": 0.5, "guidance_end": 0.5}, "begin must be less than end"),
        ({"resize_mode": 7}, "unknown resize_mode 7"),
        ({"control_mode": "more"}, "unknown control_mode 'more'"),
    ],
)
async def test_unsupported_unit_fields_are_refused_by_name(library: Resources, fields: Any, problem: str) -> None:
    errors = (RequestRejected, generation.InvalidGeneration, generation.ExtraModelNotFound)
    with pytest.raises(errors, match=problem):
        await resolve(library, TextToImage(**script(unit(**fields))))


async def test_malformed_units_and_region_inpainting_are_refused(library: Resources) -> None:
    with pytest.raises(RequestRejected, match="unit 1: must be an object"):
        await make_plan(library, SYSTEM, TextToImage(**script(unit(), 5)))
    for invalid_script in (5, {"args": 5}, {"args": unit()}):
        with pytest.raises(RequestRejected, match="`args` must be a list of units"):
            await make_plan(library, SYSTEM, TextToImage(alwayson_scripts={"controlnet": invalid_script}))
    fields = {"init_images": [INITIAL], "mask": INITIAL, **script(unit())}
    with pytest.raises(RequestRejected, match="inpaint_full_res"):
        await make_plan(library, SYSTEM, ImageToImage(**fields))
    plan = await make_plan(library, SYSTEM, ImageToImage(**fields, inpaint_full_res=False))
    assert len(plan.resolved.settings.controls) == 1


async def test_the_models_are_listed(library: Resources) -> None:
    async with library.database.read() as connection:
        names = await controlnet.model_names(connection)
    assert names == ["control_v11p_sd15_canny", "other", "sketch"]
