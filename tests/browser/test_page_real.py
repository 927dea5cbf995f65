"""The page on a server with a worker: the embedded model, a LoRA, a mask, a variation and a larger version."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, SCREEN, is_bug
from tests.server_process import Server

LORA = Path(__file__).parents[1] / "data" / "embedded_adapters" / "color.safetensors"

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("real") / "root").start()
    yield running
    running.client.close()
    running.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def real_page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    context = await browser.new_context(**SCREEN)
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if is_bug(line) else None)
    await page.goto(server.url)
    yield page
    await context.close()
    assert errors == []


async def test_images_of_the_embedded_model(real_page: Page, server: Server) -> None:
    page = real_page
    query: dict[str, str | bool] = {
        "source": str(LORA),
        "inplace": True,
    }  # the base of a LoRA for so small a model is stated
    server.client.post(
        "/api/v2/models/install", params=query, json={"name": "Purple", "base": "sd-1"}
    ).raise_for_status()
    await page.get_by_text("LoRAs").click()
    await page.locator("#lora-add").select_option(label="Purple")  # offered once it is installed
    await page.get_by_label("Prompt", exact=True).fill("a red circle on a blue background")
    await page.get_by_label("Steps", exact=True).fill("6")
    await page.get_by_role("button", name="Invoke").click()
    tiles = page.locator(".tile")
    await expect(tiles).to_have_count(1, timeout=120_000)

    await tiles.first.click()
    await expect(page.locator("#metadata")).to_contain_text("LoRA Purple")
    await page.get_by_role("button", name="Vary").click()
    await page.get_by_role("button", name="Upscale").click()
    await page.get_by_role("button", name="Paint a mask").click()
    await expect(page.locator("#mask-canvas")).to_be_focused()
    for key in ("Space", "Shift+ArrowRight", "Shift+ArrowDown", "Space"):
        await page.keyboard.press(key)
    await page.get_by_role("button", name="Done").click()
    await expect(page.get_by_role("button", name="Edit the mask")).to_be_visible()
    await page.get_by_role("button", name="Invoke").click()
    await expect(tiles).to_have_count(4, timeout=120_000)
    images = server.client.get("/api/v1/images/", params={"categories": "general", "is_intermediate": False}).json()[
        "items"
    ]
    modes = {}
    for image in images:
        metadata = server.client.get(f"/api/v1/images/i/{image['image_name']}/metadata").json()
        assert [lora["model"]["name"] for lora in metadata["loras"]] == ["Purple"]
        modes[metadata["generation_mode"], image["width"]] = metadata["steps"]
    assert modes == {("txt2img", 128): 6, ("img2img", 128): 6, ("img2img", 256): 6, ("inpaint", 128): 6}
    assert await page.locator(".toast[data-kind=error]").count() == 0
