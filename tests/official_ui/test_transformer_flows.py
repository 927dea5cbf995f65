"""FLUX.1, FLUX.2 klein and Z-Image in the official web UI: tiny models with separate text encoders and VAE."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import expect

from tests import tiny_flux_files as files
from tests.official_ui import canvas
from tests.official_ui import transformer_models as models
from tests.official_ui.conftest import UI, in_newest, in_newest_first
from tests.official_ui.runs import (
    HEIGHT,
    STEPS,
    WIDTH,
    add_reference_image,
    choose,
    choose_model,
    invoke,
    set_size_and_steps,
)
from tests.official_ui.sdxl import number
from tests.server_process import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER_VAE = "Tiny other VAE.safetensors"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformer-files")
    files.write_all(folder)
    files.write_vae(folder / OTHER_VAE, seed=1)
    models.write_all(folder)
    return folder


@pytest.fixture(scope="module")
def library(server: Server, model_folder: Path) -> Iterator[files.Library]:
    library = files.Library(server, model_folder)
    library.install(*files.PARTS, OTHER_VAE, files.DEV, files.KONTEXT, files.FILL, files.LORA)
    for name, kind in models.KINDS.items():
        library.install_file(models.path_of(model_folder, name), {"name": name, **kind})
    server.client.put("/api/v1/app/invocation_cache/disable").raise_for_status()
    yield library
    server.client.put("/api/v1/app/invocation_cache/enable").raise_for_status()
    library.remove()


@in_newest_first
async def test_flux_with_separate_parts_lora_and_references(library: files.Library, ui: UI, tmp_path: Path) -> None:
    page = ui.page
    await choose_model(ui, files.DEV)
    await ui.text("Add LoRA").first.click()
    await ui.text(files.LORA, exact=True).last.click()
    await set_size_and_steps(ui)
    await ui.button(re.compile("^Advanced")).last.click()
    for label, part in (("VAE", OTHER_VAE), ("T5 Encoder", files.T5), ("CLIP Embed", files.CLIP)):
        await choose(ui, label, part)
    run = await invoke(ui, "a red fox")
    await ui.preview(run.item["item_id"])
    loader, denoise = run.nodes["flux_model_loader"], run.nodes["flux_denoise"]
    parts = {"vae_model": OTHER_VAE, "t5_encoder_model": files.T5, "clip_embed_model": files.CLIP}
    assert {name: loader[name]["name"] for name in parts} == parts
    assert (denoise["num_steps"], denoise["width"], denoise["height"]) == (STEPS, WIDTH, HEIGHT)
    assert (run.image["width"], run.image["height"]) == (WIDTH, HEIGHT)
    metadata = run.metadata
    assert (metadata["generation_mode"], metadata["model"]["name"]) == ("flux_txt2img", files.DEV)
    assert [metadata[name]["name"] for name in ("vae", "t5_encoder", "clip_embed_model")] == [*parts.values()]
    assert [entry["model"]["name"] for entry in metadata["loras"]] == [files.LORA]

    await choose_model(ui, files.KONTEXT)
    await page.get_by_label("Remove LoRA").click()
    canvas.write_photo(tmp_path / "photo.png")
    await add_reference_image(ui, tmp_path / "photo.png")
    edited = await invoke(ui, "at night")
    assert {"flux_kontext", "flux_kontext_image_prep"} <= edited.nodes.keys()
    assert "flux_lora_collection_loader" not in edited.nodes

    await ui.picture(run.image["image_name"]).click()
    await page.get_by_label("Use All (A)").first.click()
    await expect(page.get_by_role("button", name=files.DEV, exact=True).first).to_be_visible()
    await expect(page.get_by_label("Remove LoRA")).to_be_visible()
    await expect(number(ui, "Seed")).to_have_value(str(metadata["seed"]))
    again = await invoke(ui, "a red fox")
    assert again.metadata == metadata
    assert ui.server.output_pixels(again.item) == ui.server.output_pixels(run.item)


@pytest.mark.slow
@in_newest
async def test_flux_fill_repaints_what_is_masked_on_the_canvas(library: files.Library, ui: UI, tmp_path: Path) -> None:
    await choose_model(ui, files.FILL)
    await set_size_and_steps(ui)
    photo = canvas.write_photo(tmp_path / "photo.png")
    await canvas.edit_image(ui, tmp_path / "photo.png")
    await canvas.set_size(ui)
    await canvas.paint(ui)
    await expect(ui.text("Inpaint Mask is empty")).to_have_count(0)
    run = await invoke(ui, "a red fox")
    assert run.nodes.keys() >= {"flux_fill", "flux_denoise", "apply_mask_to_image"}
    assert len(run.metadata["canvas_v2_metadata"]["inpaintMasks"]) == 1

    def is_repainted(pixels: np.ndarray) -> bool:
        middle = canvas.SIZE // 2
        return bool(np.abs(pixels - photo)[middle, middle - 8 : middle + 8].max() > 10)

    changes = np.abs(await canvas.accept_and_save(ui, is_repainted) - photo)
    assert changes[[0, 0, -1, -1], [0, -1, 0, -1]].max() <= 1, "the corners keep the photo"


@in_newest
async def test_klein_with_a_reference_image_and_z_image_with_a_lora(
    library: files.Library, ui: UI, tmp_path: Path
) -> None:
    """Both have separate encoders and VAEs."""
    await choose_model(ui, models.KLEIN)
    await set_size_and_steps(ui)
    await ui.button(re.compile("^Advanced")).last.click()
    await choose(ui, "VAE (optional)", models.KLEIN_VAE)
    await choose(ui, "Qwen3 Encoder (optional)", models.KLEIN_ENCODER)
    run = await invoke(ui, "a red fox")
    await ui.preview(run.item["item_id"])
    assert (run.image["width"], run.image["height"]) == (WIDTH, HEIGHT)
    assert run.metadata["generation_mode"] == "flux2_txt2img"
    loader = run.nodes["flux2_klein_model_loader"]
    assert (loader["vae_model"]["name"], loader["qwen3_encoder_model"]["name"]) == (
        models.KLEIN_VAE,
        models.KLEIN_ENCODER,
    )

    canvas.write_photo(tmp_path / "photo.png")
    await add_reference_image(ui, tmp_path / "photo.png")
    edited = await invoke(ui, "a red fox")
    assert "flux_kontext" in edited.nodes
    assert ui.server.output_pixels(edited.item) != ui.server.output_pixels(run.item)

    await choose_model(ui, models.Z_IMAGE)
    await ui.text("Add LoRA").first.click()
    await ui.text(models.Z_IMAGE_LORA, exact=True).last.click()
    await choose(ui, "VAE (optional)", files.VAE)
    await choose(ui, "Qwen3 Encoder (optional)", models.Z_IMAGE_ENCODER)
    run = await invoke(ui, "a red fox")
    await ui.preview(run.item["item_id"])
    assert (run.image["width"], run.image["height"]) == (WIDTH, HEIGHT)
    assert run.metadata["generation_mode"] == "z_image_txt2img"
    assert [entry["model"]["name"] for entry in run.metadata["loras"]] == [models.Z_IMAGE_LORA]
    loader = run.nodes["z_image_model_loader"]
    assert (loader["vae_model"]["name"], loader["qwen3_encoder_model"]["name"]) == (files.VAE, models.Z_IMAGE_ENCODER)


@in_newest_first
@pytest.mark.slow
async def test_the_model_tab_shows_variants_and_settings_of_flux(library: files.Library, ui: UI) -> None:
    await ui.tab("Models")
    for name, variant in ((files.DEV, "dev"), (files.FILL, "dev_fill")):
        await ui.text(name, exact=True).first.click()
        await expect(ui.page.get_by_role("heading", name=name)).to_be_visible()
        await expect(ui.text(variant, exact=True).first).to_be_visible()
        for setting in ("Default Settings", "Guidance", "Steps"):
            await expect(ui.text(setting, exact=True).first).to_be_visible()
