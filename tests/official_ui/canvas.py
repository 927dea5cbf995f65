"""Steps on the canvas of the official web UI: an image to edit, a mask, a run, and what becomes of its result."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.async_api import expect

from tests.official_ui.conftest import UI
from tests.official_ui.runs import set_numbers, upload
from tests.official_ui.sdxl import wait_until_completed

SIZE = 128


def write_photo(path: Path, size: int = SIZE) -> np.ndarray:
    """Write a gray gradient from top to bottom; returns its pixels."""
    image = Image.linear_gradient("L").resize((size, size)).convert("RGB")
    image.save(path)
    return np.asarray(image).astype(int)


async def edit_image(ui: UI, photo: Path) -> None:
    """Put an image on a new canvas, with an empty mask over it."""
    await ui.tab("Canvas")
    await upload(ui, ui.button(re.compile("^Edit Image")).first, photo)
    await expect(ui.text("Inpaint Mask is empty").first).to_be_visible()


async def set_size(ui: UI) -> None:
    """Set a small size, which is also the size that is computed."""
    await ui.text("Advanced Options").first.click()
    await ui.page.get_by_label("Scale Before Processing").press("ArrowDown")
    await ui.page.get_by_role("option", name="none", exact=True).click()
    await set_numbers(ui, Width=SIZE, Height=SIZE)


async def add_control_layer(ui: UI, image: Path, model: str) -> None:
    """Make a control layer of an image's edges on a new canvas."""
    await ui.tab("Canvas")
    await upload(ui, ui.button(re.compile("^Use a Layout Image")).first, image)
    await ui.text("Select a model", exact=True).last.click(force=True)  # the list lies over its own label
    await ui.page.get_by_role("option", name=model).click()
    known = max((item["item_id"] for item in ui.items()), default=0)
    await ui.page.get_by_label("Filter", exact=True).first.click()
    item = ui.server.wait_for(lambda: [i for i in ui.items() if i["item_id"] > known], "the filter's run")[0]
    wait_until_completed(ui, item["item_id"])
    await ui.button("Apply").click()
    await expect(ui.button("Apply")).to_have_count(0)


async def add_region(ui: UI, prompt: str) -> None:
    """Add a region with a prompt of its own in the middle of the layers."""
    await ui.page.get_by_label("Add Layer").first.click()
    await ui.page.get_by_role("menuitem", name="Regional Guidance", exact=True).click()
    await paint(ui)
    await ui.page.get_by_role("button", name="Prompt", exact=True).last.click()
    await ui.page.get_by_placeholder("Positive Prompt").first.fill(prompt)


async def paint(ui: UI) -> None:
    """Draw a stroke in the middle of the layers."""
    await ui.page.get_by_label("Fit Layers to Canvas").first.click()
    await ui.page.get_by_label(re.compile("^Brush")).first.click()
    box = await ui.page.locator(".konvajs-content").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    await ui.page.mouse.move(x - 15, y)
    await ui.page.mouse.down()
    await ui.page.mouse.move(x + 15, y, steps=4)
    await ui.page.mouse.up()


async def accept_and_save(ui: UI) -> np.ndarray:
    """Accept the staged result and save the canvas; returns the pixels of the image in the gallery."""
    known = {image["image_name"] for image in saved_images(ui)}
    await ui.page.get_by_label(re.compile("^Accept")).first.click()
    await expect(ui.page.get_by_label(re.compile("^Accept"))).to_have_count(0)
    await ui.page.get_by_label("Save Canvas to Gallery").first.click()
    new = ui.server.wait_for(lambda: [i for i in saved_images(ui) if i["image_name"] not in known], "the saved canvas")
    await expect(ui.picture(new[0]["image_name"])).to_be_visible()
    with Image.open(io.BytesIO(ui.server.client.get("/" + new[0]["image_url"]).content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def saved_images(ui: UI) -> list[dict]:
    query = {"is_intermediate": False, "categories": "general"}
    return list(ui.server.client.get("/api/v1/images/", params=query).json()["items"])
