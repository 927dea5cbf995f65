"""Stable Diffusion XL with a LoRA in the official web UI, once for each bundle, with tiny models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.official_ui.conftest import UI
from tests.parity import models
from tests.server_process import Server
from tests.tiny_models import noise_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL, LORA = "Tiny XL", "Tiny Style"
SETTINGS = {"width": 128, "height": 128, "steps": 6, "cfg_scale": 4.0, "scheduler": "euler"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny SDXL and a LoRA for one layer of its UNet."""
    import torch
    from safetensors.torch import save_file

    made = tmp_path_factory.mktemp("models")
    models.stable_diffusion_xl(made / MODEL, 2048)
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    weights = {
        f"{layer}.lora_down.weight": noise_of(1, 4, 2048),
        f"{layer}.lora_up.weight": noise_of(2, 64, 4),
        f"{layer}.alpha": torch.tensor(4.0),
    }
    save_file(weights, made / f"{LORA}.safetensors")
    return made


@pytest.fixture(scope="module")
def installed(server: Server, folder: Path) -> Iterator[None]:
    """Install them in place, with small images as the default of the main model."""
    for path in folder.iterdir():
        query = {"source": str(path), "inplace": True}
        server.client.post("/api/v2/models/install", params=query, json={"name": path.stem}).raise_for_status()

    def keys() -> dict[str, str]:
        return {model["name"]: model["key"] for model in server.client.get("/api/v2/models/").json()["models"]}

    known = server.wait_for(lambda: keys() if {MODEL, LORA} <= keys().keys() else None, "the models")
    settings = {"default_settings": SETTINGS}
    server.client.patch(f"/api/v2/models/i/{known[MODEL]}", json=settings).raise_for_status()
    yield
    for name in (MODEL, LORA):
        server.client.delete(f"/api/v2/models/i/{known[name]}").raise_for_status()


@pytest.mark.usefixtures("installed")
async def test_an_image_with_a_lora_and_its_recall(ui: UI) -> None:
    lora = ui.page.get_by_label("Remove LoRA")
    await expect(ui.text(MODEL, exact=True).first).to_be_visible()  # it prefers SDXL to the embedded model
    await ui.text("Add LoRA").first.click()
    await ui.text(LORA, exact=True).last.click()
    await expect(lora).to_be_visible()

    item_id = await ui.invoke("a red fox in the snow")
    await expect(ui.page.get_by_test_id("progress-image").first).to_be_visible()
    item = ui.server.finished(item_id)
    assert item["status"] == "completed", item["error_message"]
    image, metadata = ui.server.picture_of(item), ui.server.picture_metadata(item)
    assert (image["width"], image["height"]) == (128, 128)
    assert (metadata["generation_mode"], metadata["model"]["name"]) == ("sdxl_txt2img", MODEL)
    assert [(entry["model"]["name"], entry["weight"]) for entry in metadata["loras"]] == [(LORA, 0.75)]

    await ui.picture(image["image_name"]).click()
    await ui.page.get_by_label("Info (I)").first.click()
    for shown in (f"{MODEL} (SDXL)", f"{LORA} (SDXL) - 0.75"):
        await expect(ui.text(shown).first).to_be_visible()
    await ui.page.get_by_label("Info (I)").first.click()
    await lora.click()
    await ui.prompt("something else")
    await expect(lora).to_have_count(0)
    await ui.page.get_by_label("Use All (A)").first.click()
    await expect(lora).to_be_visible()
    await expect(ui.page.locator("textarea").first).to_have_value("a red fox in the snow")
    await expect(ui.page.get_by_role("spinbutton", name="Seed")).to_have_value(str(metadata["seed"]))
