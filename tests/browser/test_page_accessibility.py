"""All parts of the page checked by axe-core on wide and narrow screens, light and dark; a mask painted with a finger."""

from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, ViewportSize, expect

from tests.browser.axe import AXE, check
from tests.browser.conftest import PATIENCE, offer_model
from tests.browser.painter import Painter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not AXE.exists(), reason="axe-core is not in .cache/axe (scripts/test fetches it)"),
]

SCREENS = [(width, scheme) for width in (1500, 390) for scheme in ("light", "dark")]


@pytest_asyncio.fixture(loop_scope="module")
async def screen(request: pytest.FixtureRequest, browser: Browser, url: str) -> Any:
    """Open the page on a screen of a width and a color scheme; narrow ones are touched."""
    width, scheme = request.param
    size: ViewportSize = {"width": width, "height": 844 if width < 500 else 900}
    context = await browser.new_context(
        viewport=size, color_scheme=scheme, has_touch=width < 500, reduced_motion="reduce"
    )
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    await offer_model(page)
    await page.goto(url)
    await page.wait_for_selector('#link[data-state="online"]')
    yield page
    await context.close()


@pytest.mark.parametrize("screen", SCREENS, indirect=True)
async def test_no_dialog_has_a_finding(screen: Page, painter: Painter) -> None:
    page = screen
    await check(page, "empty page")
    await page.get_by_label("Prompt", exact=True).fill("a red circle")
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator(".tile")).to_have_count(1)
    painter.go.clear()
    await page.get_by_role("button", name="Invoke").click()
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator("#queue-text")).to_have_text("1 running, 1 waiting")
    await check(page, "run in progress")

    async def visit(opener: Locator, dialog: str) -> None:
        await opener.click()
        await expect(page.locator(dialog)).to_be_visible()
        await check(page, dialog)

    await visit(page.locator("#queue"), "#queue-items li >> nth=0")
    await page.keyboard.press("Escape")
    await visit(page.get_by_role("button", name="History"), "#history-list li")
    await page.keyboard.press("Escape")
    await visit(page.locator("#models-open"), "#models-list li >> nth=0")
    await visit(page.get_by_role("button", name="Starter models"), "#models-list button >> nth=0")
    await page.locator("#install-source").fill("no/such/file")
    await visit(page.get_by_role("button", name="Install", exact=True), '.toast[data-kind="error"]')
    await page.keyboard.press("Escape")
    await visit(page.get_by_role("button", name="New style"), "#ask-name")
    await page.keyboard.press("Escape")
    await visit(page.locator(".tile"), "#metadata dt >> nth=0")
    await visit(page.get_by_role("button", name="Paint a mask"), "#mask-canvas")


@pytest.mark.parametrize("screen", SCREENS[-1:], indirect=True)
async def test_a_mask_is_painted_with_a_finger(screen: Page, painter: Painter) -> None:
    page = screen
    await page.get_by_role("button", name="Invoke").tap()
    await page.locator(".tile").tap()
    await page.get_by_role("button", name="Paint a mask").tap()
    mask = page.locator("#mask-canvas")
    await expect(mask).to_be_focused()
    box = await mask.bounding_box()
    assert box is not None
    devtools = await page.context.new_cdp_session(page)
    for kind, shift in (("touchStart", 0.3), ("touchMove", 0.5), ("touchMove", 0.7), ("touchEnd", None)):
        point = [] if shift is None else [{"x": box["x"] + box["width"] * shift, "y": box["y"] + box["height"] * 0.5}]
        await devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": point})
    painted = "(canvas, x) => canvas.getContext('2d').getImageData(x * canvas.width, canvas.height / 2, 1, 1).data[3]"
    await expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    assert [await mask.evaluate(painted, x) for x in (0.1, 0.4, 0.6, 0.9)] == [0, 255, 255, 0]
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    assert await mask.evaluate(painted, 0.5) == 0
