"""What `invokeclone generate` applies to the model, and the images that it reads."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from invokeclone.cli import generate
from invokeclone.cli.main import CommandError, parser
from invokeclone.graph.invocations import registry
from invokeclone.images import service
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry as model_registry
from invokeclone.models.records import store as models

COMMON = {"hash": "blake3:0", "file_size": 1, "source": "x", "source_type": "path"}
MODELS: dict[str, dict[str, Any]] = {
    "xl": {"type": "main", "format": "diffusers", "base": "sdxl", "prediction_type": "epsilon", "variant": "normal"},
    "refiner": {"type": "main", "format": "diffusers", "base": "sdxl-refiner", "variant": "normal"},
    "style:v1": {"type": "lora", "format": "lycoris", "base": "sdxl"},
    "edges": {"type": "controlnet", "format": "diffusers", "base": "sdxl"},
    "follows": {
        "type": "controlnet",
        "format": "diffusers",
        "base": "sdxl",
        "default_settings": {"preprocessor": "canny_image_processor"},
    },
    "ip-adapter_sdxl_vit-h": {"type": "ip_adapter", "format": "checkpoint", "base": "sdxl"},
    "IP Adapter SD1.5 Image Encoder": {"type": "clip_vision", "format": "diffusers", "base": "any"},
}


@pytest.fixture
async def library(resources: Resources) -> Resources:
    registry.discover()
    for name, fields in MODELS.items():
        await add_model(resources, name, fields)
    return resources


async def add_model(resources: Resources, name: str, fields: dict[str, Any]) -> None:
    record = COMMON | {"key": name, "name": name, "path": name} | fields
    if fields["format"] == "diffusers":
        record["repo_variant"] = ""
    if fields["type"] == "main":
        record.setdefault("prediction_type", "epsilon")
    async with resources.database.write() as connection:
        await models.add(connection, model_registry.parse(record))


async def nodes_of(library: Resources, *arguments: str) -> dict[str, Any]:
    parsed = parser().parse_args(["generate", "a fox", "--out", "o.png", "--width", "64", "--height", "64", *arguments])
    return dict((await generate._batch(library, parsed)).graph.nodes)


def save_image(folder: Path, name: str, color: Any = "red", size: tuple[int, int] = (32, 32)) -> str:
    Image.new("RGBA" if isinstance(color, tuple) else "RGB", size, color).save(folder / name)
    return str(folder / name)


async def test_loras_controls_references_and_refiner_reach_the_graph(library: Resources, tmp_path: Path) -> None:
    photo = save_image(tmp_path, "a.png")
    nodes = await nodes_of(
        library,
        *("--lora", "style:v1:0.5", "--control", f"edges:{photo}", "--refiner", "refiner"),
        *("--reference", photo, "--reference", f"ip-adapter_sdxl_vit-h:{photo}"),
    )
    assert [(lora.lora.key, lora.weight) for lora in nodes["loras"].loras] == [("style:v1", 0.5)]
    control = nodes["denoise_latents_controlnet_0"]
    assert control.control_model.key == "edges"
    with Image.open((await service.file(library, control.image.image_name)).source()) as image:
        assert image.size == (32, 32)
    for number in (0, 1):
        adapter = nodes[f"denoise_latents_ip_adapter_{number}"]
        assert (adapter.ip_adapter_model.key, adapter.clip_vision_model) == ("ip-adapter_sdxl_vit-h", "ViT-H")
    assert nodes["refiner_denoise_latents"].denoising_start == 0.8
    nodes = await nodes_of(library, "--lora", "style:v1")
    assert [(lora.lora.key, lora.weight) for lora in nodes["loras"].loras] == [("style:v1", 1.0)]


async def test_controls_by_the_type_of_their_images(library: Resources, tmp_path: Path) -> None:
    photo = save_image(tmp_path, "a.png")
    nodes = await nodes_of(library, "--model", "xl", "--control", f"canny:{photo}")
    assert nodes["denoise_latents_controlnet_0"].control_model.key == "follows", "by the preprocessor of its record"
    await add_model(library, "FLUX union", {"type": "controlnet", "format": "diffusers", "base": "flux"})
    await add_model(library, "dev", {"type": "main", "format": "diffusers", "base": "flux", "variant": "dev"})
    nodes = await nodes_of(library, "--model", "dev", "--control", f"Depth:{photo}", "--control", f"FLUX union:{photo}")
    nets = [nodes[f"denoise_latents_controlnet_{number}"] for number in (0, 1)]
    assert [(net.control_model.key, net.instantx_control_mode) for net in nets] == [
        ("FLUX union", 2),
        ("FLUX union", -1),
    ]


async def test_init_image_mask_and_strength_reach_the_graph(library: Resources, tmp_path: Path) -> None:
    photo, mask = save_image(tmp_path, "a.png", size=(40, 80)), save_image(tmp_path, "m.png", (255, 255, 255, 0))
    nodes = await nodes_of(library, "--init", photo, "--strength", "0.4")
    assert nodes["denoise_latents"].denoising_start == pytest.approx(0.6)
    with Image.open((await service.file(library, nodes["i2l"].image.image_name)).source()) as image:
        assert image.size == (64, 64)
    assert (await nodes_of(library, "--init", photo))["denoise_latents"].denoising_start == 0.25
    nodes = await nodes_of(library, "--init", photo, "--mask", mask)
    assert nodes["denoise_latents"].denoising_start == 0.0
    with Image.open((await service.file(library, nodes["denoise_mask"].mask.image_name)).source()) as image:
        assert image.convert("L").getextrema() == (0, 0), "all of it changes"
    nodes = await nodes_of(library, "--init", photo, "--mask", mask, "--strength", "0.5")
    assert nodes["denoise_latents"].denoising_start == 0.5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--reference", "nothing.png"), "nothing.png: No such file"),
        (("--control", "edges:nothing.png"), "nothing.png: No such file"),
        (("--control", "edges"), "must be NAME:FILE"),
        (("--control", "depth:a.png", "--model", "xl"), "no control model of the type depth for sdxl models"),
        (("--lora", "style:v1:many"), "there is no LoRA 'style:v1:many'"),
        (("--mask", "m.png"), "--mask requires --init"),
        (("--refiner", "xl"), "requires a refiner of sdxl-refiner"),
    ],
)
async def test_invalid_inputs_are_refused(library: Resources, arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        await nodes_of(library, *arguments)
