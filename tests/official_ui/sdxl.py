"""Stable Diffusion XL with a LoRA and the refiner in the official web UI: tiny models, and the steps of its flow."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, expect

from tests.official_ui.conftest import UI
from tests.parity import models
from tests.server_process import Server
from tests.tiny_models import noise_of

MODEL, LORA, REFINER, OTHER = "Tiny XL", "Tiny Style", "Tiny Refiner", "Embedded Tiny"
SETTINGS = {"width": 128, "height": 128, "steps": 6, "cfg_scale": 4.0, "scheduler": "euler"}
PROMPT = "a red fox in the snow"


def write_models(folder: Path) -> None:
    """Write a tiny SDXL, its refiner, and a LoRA for one layer of its UNet."""
    import torch
    from safetensors.torch import save_file

    models.stable_diffusion_xl(folder / MODEL, 2048)
    models.stable_diffusion_xl(folder / REFINER, 1280, refiner=True)
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    weights = {
        f"{layer}.lora_down.weight": noise_of(1, 4, 2048),
        f"{layer}.lora_up.weight": noise_of(2, 64, 4),
        f"{layer}.alpha": torch.tensor(4.0),
    }
    save_file(weights, folder / f"{LORA}.safetensors")


@contextmanager
def install_models(server: Server, folder: Path) -> Iterator[None]:
    """Install them in place, with small images as the default of the main model, and let nodes run again each time."""
    client = server.client
    for path in folder.iterdir():
        query: dict[str, str | bool] = {"source": str(path), "inplace": True}
        client.post("/api/v2/models/install", params=query, json={"name": path.stem}).raise_for_status()

    def keys() -> dict[str, str]:
        return {model["name"]: model["key"] for model in client.get("/api/v2/models/").json()["models"]}

    names = {MODEL, LORA, REFINER}
    keys_by_name = server.wait_for(lambda: keys() if names <= keys().keys() else None, "the models")
    client.patch(f"/api/v2/models/i/{keys_by_name[MODEL]}", json={"default_settings": SETTINGS}).raise_for_status()
    client.put("/api/v1/app/invocation_cache/disable").raise_for_status()
    yield
    client.put("/api/v1/app/invocation_cache/enable").raise_for_status()
    for name in names:
        client.delete(f"/api/v2/models/i/{keys_by_name[name]}").raise_for_status()


def number(ui: UI, name: str) -> Locator:
    return ui.page.get_by_role("spinbutton", name=name, exact=True)


async def choose_lora_and_refiner(ui: UI) -> None:
    await ui.text("Add LoRA").first.click()
    await ui.text(LORA, exact=True).last.click()
    await expect(ui.page.get_by_label("Remove LoRA")).to_be_visible()
    await ui.button("Refiner").click()
    option = ui.page.get_by_role("option", name=REFINER)
    await ui.page.get_by_role("combobox", name="Refiner Model").press("ArrowDown")
    await expect(option).to_be_visible()
    await ui.page.keyboard.press("Enter")  # a click misses when the list is drawn again under it
    await expect(option).to_have_count(0)
    await expect(ui.text(REFINER, exact=True).first).to_be_visible()


async def change_everything(ui: UI) -> None:
    """Change what "Use All" recalls: the LoRA, the prompt, the refiner's start, the size and the model."""
    await number(ui, "Refiner Start").fill("0.5")
    await number(ui, "Refiner Start").press("Tab")
    await ui.page.get_by_label("Remove LoRA").click()
    await ui.prompt("something else")
    await ui.page.get_by_role("button", name=MODEL, exact=True).first.click()
    await ui.text(OTHER, exact=True).last.click()
    await expect(ui.page.get_by_role("button", name=OTHER, exact=True).first).to_be_visible()
    await number(ui, "Width").fill("256")
    await number(ui, "Width").press("Tab")


async def invoke_again(ui: UI) -> dict[str, Any]:
    """Generate with what the UI has now; returns the completed item."""
    last = max(item["item_id"] for item in ui.items())
    await ui.button(re.compile("^Invoke")).first.click()
    new = ui.server.wait_for(lambda: [i for i in ui.items() if i["item_id"] > last], "an item")
    return wait_until_completed(ui, new[0]["item_id"])


def wait_until_completed(ui: UI, item_id: int) -> dict[str, Any]:
    item = ui.server.finished(item_id)
    assert item["status"] == "completed", item["error_message"]
    return item
