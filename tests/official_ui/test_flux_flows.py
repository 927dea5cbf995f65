"""FLUX.1 in the official web UI: a tiny model with separate text encoders and VAE, once for each bundle."""

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import expect

from tests import tiny_flux_files as files
from tests.official_ui.conftest import UI
from tests.official_ui.runs import HEIGHT, STEPS, WIDTH, choose_model, invoke, set_size_and_steps
from tests.official_ui.sdxl import number
from tests.server_process import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER_VAE = "Tiny other VAE.safetensors"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux-files")
    files.write_all(folder)
    files.write_vae(folder / OTHER_VAE, seed=1)
    return folder


@pytest.fixture(scope="module")
def library(server: Server, model_folder: Path) -> files.Library:
    models = files.Library(server, model_folder)
    models.install(*files.PARTS, OTHER_VAE, files.DEV, files.KONTEXT, files.FILL, files.LORA)
    server.client.put("/api/v1/app/invocation_cache/disable").raise_for_status()
    return models


async def choose(ui: UI, label: str, option: str) -> None:
    """Choose an entry of a list with a label."""
    group = ui.page.get_by_role("group").filter(has=ui.page.get_by_text(label, exact=True)).last
    await group.get_by_role("combobox").click()
    await ui.page.get_by_role("option", name=option, exact=True).click()
    await expect(group).to_contain_text(option)


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
    Image.linear_gradient("L").resize((128, 96)).convert("RGB").save(tmp_path / "photo.png")
    async with page.expect_file_chooser() as chooser:
        await ui.button("Reference Image").first.click()
    await (await chooser.value).set_files(tmp_path / "photo.png")
    await expect(ui.text("Reference Image #1")).to_be_visible()
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
    assert ui.server.pixels_of(again.item) == ui.server.pixels_of(run.item)


@pytest.mark.slow
async def test_the_model_tab_shows_variants_and_settings_of_flux(library: files.Library, ui: UI) -> None:
    await ui.tab("Models")
    for name, variant in ((files.DEV, "dev"), (files.FILL, "dev_fill")):
        await ui.text(name, exact=True).first.click()
        await expect(ui.page.get_by_role("heading", name=name)).to_be_visible()
        await expect(ui.text(variant, exact=True).first).to_be_visible()
        for setting in ("Default Settings", "Guidance", "Steps"):
            await expect(ui.text(setting, exact=True).first).to_be_visible()
