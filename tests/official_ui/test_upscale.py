"""The upscaling tab of the official web UI, with a tiny Real-ESRGAN and a tile ControlNet."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests import tiny_flux_files as files
from tests import tiny_upscalers
from tests.official_ui import canvas
from tests.official_ui.conftest import UI, in_both_versions
from tests.official_ui.runs import choose_model, invoke, upload
from tests.parity import models
from tests.server_process import Server

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

MAIN, CONTROL, UPSCALER = "Tiny SD", "Tiny tile ControlNet", "Tiny ESRGAN"
SIDE = 64


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny_upscalers.require_spandrel()
    folder = tmp_path_factory.mktemp("upscaling")
    models.make(folder)
    tiny_upscalers.write_esrgan(folder / f"{UPSCALER}.pth")
    return folder


@pytest.fixture(scope="module")
def library(server: Server, model_folder: Path) -> Iterator[files.Library]:
    library = files.Library(server, model_folder)
    for name, file in {MAIN: "p-sd15", CONTROL: "p-controlnet-sd15", UPSCALER: f"{UPSCALER}.pth"}.items():
        library.install_file(model_folder / file, {"name": name})
    yield library
    library.remove()


@in_both_versions
async def test_an_image_is_upscaled(library: files.Library, ui: UI, tmp_path: Path) -> None:
    canvas.write_photo(tmp_path / "photo.png", SIDE)
    await choose_model(ui, MAIN)
    await ui.tab("Upscaling")
    await upload(ui, ui.button(re.compile("^Upload Image to Upscale")).first, tmp_path / "photo.png")
    run = await invoke(ui, "a red fox", output="l2i")
    assert run.nodes["spandrel_image_to_image_autoscale"]["image_to_image_model"]["name"] == UPSCALER
    assert run.nodes["controlnet"]["control_model"]["name"] == CONTROL
    assert "tiled_multi_diffusion_denoise_latents" in run.nodes
    assert (run.image["width"], run.image["height"]) == (4 * SIDE, 4 * SIDE)
    await expect(ui.picture(run.image["image_name"])).to_be_visible()
