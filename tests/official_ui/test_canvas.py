"""Stable Diffusion on the canvas of the official web UI: control layers, regions, reference images, masks, HiDiffusion."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.async_api import expect

from tests import tiny_flux_files as files
from tests import tiny_lama
from tests.official_ui import canvas
from tests.official_ui.conftest import UI, in_both_versions, in_newest
from tests.official_ui.runs import add_reference_image, choose_model, invoke, set_numbers
from tests.parity import models
from tests.server_process import Server

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

MAIN, FULL, CONTROL, ADAPTER = "Tiny SD", "Tiny complete SD", "Tiny ControlNet", "Tiny IP-Adapter"
ENCODER = "IP Adapter SD1.5 Image Encoder"
FILES = {
    MAIN: "p-sd15",
    FULL: "p-sd15-full",
    CONTROL: "p-controlnet-sd15",
    ADAPTER: "p-ip-sd15.safetensors",
    ENCODER: ENCODER,
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stable-diffusion")
    models.make(folder)
    return folder


@pytest.fixture(scope="module")
def library(server: Server, model_folder: Path) -> Iterator[files.Library]:
    library = files.Library(server, model_folder)
    for name, file in FILES.items():
        library.install_file(model_folder / file, {"name": name})
    yield library
    library.remove()


async def set_steps(ui: UI) -> None:
    await ui.text("Advanced Options").first.click()
    await set_numbers(ui, Steps=4)


@in_both_versions
async def test_a_control_layer_a_region_and_a_reference_image(library: files.Library, ui: UI, tmp_path: Path) -> None:
    image = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(image).ellipse((70, 70, 186, 186), fill="black")
    image.save(tmp_path / "shape.png")
    canvas.write_photo(tmp_path / "photo.png")
    await choose_model(ui, MAIN)
    await set_steps(ui)
    await add_reference_image(ui, tmp_path / "photo.png")
    await expect(ui.text(ADAPTER, exact=True).first).to_be_visible()
    await canvas.add_control_layer(ui, tmp_path / "shape.png", CONTROL)
    await canvas.add_region(ui, "a blue square")
    run = await invoke(ui, "a red fox")
    assert "a blue square" in [node.get("prompt") for node in run.graph["nodes"].values()]
    assert run.nodes.keys() >= {"controlnet", "ip_adapter", "alpha_mask_to_tensor", "denoise_latents"}
    assert run.nodes["controlnet"]["control_model"]["name"] == CONTROL
    assert run.nodes["ip_adapter"]["ip_adapter_model"]["name"] == ADAPTER
    await canvas.accept_and_save(ui, lambda pixels: pixels.shape == (512, 512, 3))


@in_both_versions
async def test_a_canvas_is_painted_over_and_extended(ui: UI, tmp_path: Path) -> None:
    tiny_lama.put_into_download_cache(ui.server.root)
    photo = canvas.write_photo(tmp_path / "photo.png", 512)
    await choose_model(ui, "Embedded Tiny")
    await canvas.edit_image(ui, tmp_path / "photo.png")
    await canvas.paint(ui)
    await expect(ui.text("Inpaint Mask is empty")).to_have_count(0)
    run = await invoke(ui, "a red circle on a blue background")
    assert run.metadata["generation_mode"] == "inpaint"

    def is_painted_over(pixels: np.ndarray) -> bool:
        return bool(np.abs(pixels - photo)[256, 226:286].max() > 10)

    painted = await canvas.accept_and_save(ui, is_painted_over)
    corners = [0, 0, -1, -1], [0, -1, 0, -1]
    assert np.abs(painted - photo)[corners].max() <= 1, "the corners keep the photo"

    await set_numbers(ui, Width=640)
    run = await invoke(ui, "a red circle on a blue background")
    assert run.metadata["generation_mode"] == "outpaint"
    assert "infill_lama" in run.nodes
    extended = await canvas.accept_and_save(ui, lambda pixels: pixels.shape == (512, 640, 3))
    assert np.abs(extended[0, 0] - photo[0, 0]).max() <= 1
    assert extended[:, 600:].std() > 1


@in_newest
async def test_hidiffusion(library: files.Library, ui: UI) -> None:
    await choose_model(ui, FULL)
    await set_steps(ui)
    await ui.text("Random", exact=True).first.click()
    await set_numbers(ui, Seed=7)
    plain = await invoke(ui, "a red fox")
    await ui.button(re.compile("^Advanced")).last.click()
    await ui.text("HiDiffusion", exact=True).first.click()
    run = await invoke(ui, "a red fox")
    assert run.nodes["denoise_latents"]["hidiffusion"]
    assert run.metadata["seed"] == plain.metadata["seed"] == 7
    assert ui.server.output_pixels(run.item) != ui.server.output_pixels(plain.item)
