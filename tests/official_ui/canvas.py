"""Steps on the canvas of the official web UI: an image to edit, a mask, a run, and what becomes of its result."""

import asyncio
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.async_api import expect

from tests.official_ui.conftest import UI
from tests.official_ui.runs import set_numbers, upload
from tests.official_ui.sdxl import wait_until_completed

SIZE = 128
SAVE_ATTEMPTS, SAVE_PATIENCE = 4, 30
"""Number of clicks to save the canvas, and seconds after each in which the image arrives."""
LIST_PATIENCE = 15_000
"""Milliseconds after a run in which the page lists its result."""


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


async def accept_and_save(ui: UI, shows_result: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Accept the staged result and save the canvas; returns the pixels of the image in the gallery.

    The canvas is saved as far as it is drawn, so it is saved again until `shows_result` of the pixels is true.
    """
    await wait_for_result(ui)
    await ui.page.get_by_label(re.compile("^Accept")).first.click()
    await expect(ui.page.get_by_label(re.compile("^Accept"))).to_have_count(0)
    for _ in range(SAVE_ATTEMPTS):
        pixels = await save(ui)
        if pixels is not None and shows_result(pixels):
            return pixels
    raise AssertionError(f"the saved canvas does not show the result: {None if pixels is None else pixels.shape}")


async def save(ui: UI) -> np.ndarray | None:
    """Save the canvas; returns its pixels, or None if it is not saved: the button does nothing on a busy canvas."""
    known = {image["image_name"] for image in saved_images(ui)}
    await ui.page.get_by_label("Save Canvas to Gallery").first.click()
    for _ in range(SAVE_PATIENCE):
        new = [image for image in saved_images(ui) if image["image_name"] not in known]
        if new:
            await expect(ui.picture(new[0]["image_name"])).to_be_visible()
            with Image.open(io.BytesIO(ui.server.client.get("/" + new[0]["image_url"]).content)) as image:
                return np.asarray(image.convert("RGB")).astype(int)
        await asyncio.sleep(1)
    return None


async def wait_for_result(ui: UI) -> None:
    """Wait until the result of a run can be accepted, and reload the page if it has lost it.

    The page lists the canvas's items when one starts and when one ends, but does not list them at the end while it has
    not yet processed the first list, which has no result. A busy machine takes longer for that than for a tiny run.
    """
    accept = ui.page.get_by_label(re.compile("^Accept")).first
    try:
        await expect(accept).to_be_enabled(timeout=LIST_PATIENCE)
    except AssertionError:
        await ui.page.reload()
        await ui.tab("Canvas")
        await expect(accept).to_be_enabled()


def saved_images(ui: UI) -> list[dict]:
    query: dict[str, str | bool] = {"is_intermediate": False, "categories": "general"}
    return list(ui.server.client.get("/api/v1/images/", params=query).json()["items"])
