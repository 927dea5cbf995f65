"""The page in a real browser: an image from prompt to gallery, and what can be done to it."""

import re

import pytest
from playwright.async_api import Page, Route, expect

from invokeclone.kit.requests import Application
from tests.browser.axe import AXE, check
from tests.browser.conftest import fill
from tests.browser.painter import Painter

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_empty_gallery_shows_a_message_and_defaults_come_from_the_model(page: Page) -> None:
    await expect(page.locator("#empty")).to_be_visible()
    await expect(page.locator("#queue-text")).to_have_text("Queue empty")
    for name, value in (("width", "128"), ("height", "128"), ("steps", "12"), ("cfg", "4"), ("scheduler", "ddim")):
        await expect(page.locator(f"#{name}")).to_have_value(value)


async def test_an_image_from_prompt_to_gallery(page: Page, painter: Painter) -> None:
    painter.go.clear()
    await page.get_by_label("Prompt", exact=True).fill("a red circle")
    await page.get_by_label("Negative prompt").fill("a square")
    await page.get_by_label("Seed").is_disabled()
    await page.get_by_label("Count").fill("2")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#preview")).to_be_visible()
    await expect(page.locator("#progress-message")).to_have_text("Denoising 25 %")
    await expect(page.locator("#queue-text")).to_have_text("1 running, 1 waiting")
    painter.go.set()
    await expect(page.locator(".tile")).to_have_count(2)
    await expect(page.locator("#progress")).to_be_hidden()
    await expect(page.locator("#total")).to_have_text("2 images")
    first, second = painter.items
    assert second["nodes"]["seed"]["value"] == (first["nodes"]["seed"]["value"] + 1) % 2**32
    assert first["nodes"]["positive_prompt"]["value"] == "a red circle"


async def test_the_page_opens_with_one_script_and_without_a_request_sent_twice(page: Page) -> None:
    """What the document preloads is what the modules fetch."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    await page.reload()
    await expect(page.get_by_role("button", name="Invoke")).to_be_enabled()
    await expect(page.locator("#empty")).to_be_visible()
    await expect(page.locator("#style option")).not_to_have_count(1)
    lists = [address for address in sent if "/api/" in address]
    again = ("/queue/default/status", "limit=10&")  # once more after each connection of the socket
    once = [address for address in lists if not any(part in address for part in again)]
    assert len(once) == len(set(once))
    assert len([address for address in lists if "/api/v1/images/" in address and "limit=60" in address]) == 1
    assert len([address for address in sent if address.endswith(".js")]) == 1


async def test_an_image_made_between_the_list_and_the_connection_is_listed(page: Page, app: Application) -> None:
    async def answer(route: Route) -> None:
        response = await route.fetch()
        await fill(app, 2)
        await route.fulfill(response=response)

    await page.route("**/api/v1/images/?*limit=60*", answer, times=1)
    await page.reload()
    await expect(page.locator(".tile")).to_have_count(2)
    await expect(page.locator("#total")).to_have_text("2 images")


async def test_cancel_and_clear(page: Page, painter: Painter) -> None:
    painter.go.clear()
    await page.get_by_label("Count").fill("3")
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator("#queue-text")).to_have_text("1 running, 2 waiting")
    await page.get_by_role("button", name="Clear queue").click()
    await expect(page.locator("#queue-text")).to_have_text("1 running")
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await expect(page.locator("#queue-text")).to_have_text("Queue empty")
    painter.go.set()
    await expect(page.locator("#empty")).to_be_visible()
    await page.reload()
    await expect(page.locator("#link")).to_have_attribute("data-state", "online")
    await expect(page.locator(".toast")).to_have_count(0)  # it is no loss


async def test_a_failure_and_a_refusal_show_a_toast(page: Page, painter: Painter) -> None:
    painter.fail = True
    await page.get_by_role("button", name="Invoke").click()
    toast = page.locator(".toast")
    await expect(toast.locator("span")).to_have_text("Failed: no paint left")
    painter.fail = False
    await toast.get_by_role("button", name="Run again").click()
    await expect(toast).to_have_count(0)
    await expect(page.locator(".tile")).to_have_count(1)
    await page.route("**/enqueue_prompt", lambda route: route.fulfill(status=422, json={"detail": "not like this"}))
    await page.get_by_role("button", name="Invoke").click()
    await expect(toast.filter(has_text="not like this")).to_have_count(1)


@pytest.mark.parametrize("image_count", [2])
async def test_viewer(page: Page, painter: Painter) -> None:
    await page.get_by_label("Prompt", exact=True).fill("a blue star")
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator(".tile")).to_have_count(3)
    await page.locator(".tile").first.click()
    await expect(page.locator("#metadata")).to_contain_text("a blue star")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#metadata")).not_to_contain_text("a blue star")
    await page.keyboard.press("ArrowLeft")
    await page.locator("#star").click()
    await expect(page.locator("#star")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator(".badge")).to_have_count(1)
    async with page.expect_download() as download:
        await page.locator("#download").click()
    assert (await download.value).suggested_filename.endswith(".png")
    await page.locator("#reuse").click()
    await expect(page.locator("#viewer")).to_be_hidden()
    await expect(page.get_by_label("Seed")).to_have_value(re.compile(r"\d+"))
    await expect(page.get_by_label("Random")).not_to_be_checked()
    await page.locator(".tile").first.click()
    await page.keyboard.press("Delete")
    await expect(page.locator("#delete")).to_have_text("Really delete?")
    await page.keyboard.press("Delete")
    await expect(page.locator(".tile")).to_have_count(2)
    await page.locator("#star").click()
    await page.keyboard.press("Escape")
    await expect(page.locator("#total")).to_have_text("2 images")
    await page.get_by_role("button", name="Starred").click()
    await expect(page.locator(".tile")).to_have_count(1)


@pytest.mark.parametrize("image_count", [70])
async def test_scrolling_loads_more(page: Page) -> None:
    await expect(page.locator("#total")).to_have_text("70 images")
    tiles = page.locator(".tile")
    await expect(tiles).not_to_have_count(0)
    loaded = await tiles.count()
    assert loaded < 70
    while loaded < 70:
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await expect(tiles).not_to_have_count(loaded)
        loaded = await tiles.count()
    names = await tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.name)")
    assert len(set(names)) == len(names) == 70


@pytest.mark.parametrize("image_count", [1])
async def test_input_image(page: Page, painter: Painter) -> None:
    await page.locator(".tile").click()
    await page.locator("#use").click()
    await expect(page.locator("#source-drop img")).to_be_visible()
    await page.get_by_label("Strength", exact=True).fill("0.75")
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator(".tile")).to_have_count(2)
    nodes = painter.items[0]["nodes"]
    assert nodes["denoise_latents"]["denoising_start"] == 0.25
    assert nodes["resize"]["width"] == 128


async def test_form_values_survive_a_reload(page: Page) -> None:
    await page.get_by_label("Prompt", exact=True).fill("remember me")
    await page.locator("#steps").fill("7")
    await page.reload()
    await expect(page.get_by_label("Prompt", exact=True)).to_have_value("remember me")
    await expect(page.locator("#steps")).to_have_value("7")


async def test_missing_models_show_a_hint(blank: Page, url: str) -> None:
    page = blank
    await page.route("**/api/v2/models/capabilities", lambda route: route.fulfill(json={"models": []}))
    await page.goto(url)
    await expect(page.locator("#model-hint")).to_be_visible()
    await expect(page.get_by_role("button", name="Invoke")).to_be_disabled()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not in .cache/axe (scripts/test fetches it)")
@pytest.mark.parametrize("image_count", [5])
async def test_a_phone_shows_everything_and_axe_finds_nothing(page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    await expect(page.locator(".tile")).to_have_count(5)
    for section in ("LoRAs", "Input image", "Advanced"):
        await page.get_by_text(section, exact=True).click()
    await check(page, "page")
