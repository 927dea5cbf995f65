"""The official UI of 6.14.2 with several users (6.8.1's has no accounts): setup, signing in, a picture of one's own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.official_ui.conftest import NEWEST, PATIENCE, UI, start_server
from tests.server_process import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "Right-Passw0rd"


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Server]:
    running = start_server(tmp_path / "root", NEWEST, INVOKEAI_MULTIUSER="true")
    yield running
    running.client.close()
    running.stop()


async def sign_in(page: Page) -> None:
    await page.wait_for_url("**/login")
    await page.locator("input[type=email]").fill("admin@example.com")
    await page.locator("input[type=password]").fill(PASSWORD)
    await page.get_by_role("button", name=re.compile("sign in|log in", re.IGNORECASE)).click()
    await page.wait_for_url("**/app")


async def test_users_are_set_up_and_generate_images(browser: Browser, shared: Server) -> None:
    page = await (await browser.new_context(viewport={"width": 1500, "height": 950})).new_page()
    page.set_default_timeout(PATIENCE)
    await page.goto(shared.url)
    await page.wait_for_url("**/setup")
    await page.locator("input[type=email]").fill("admin@example.com")
    await page.locator("input[type=text]").first.fill("Admin")
    for field in await page.locator("input[type=password]").all():
        await field.fill(PASSWORD)
    await page.get_by_role("button", name="Create Administrator Account").click()
    await sign_in(page)

    ui = await UI(page, shared).open()  # from here on nothing may go wrong
    token = await page.evaluate("localStorage.getItem('auth_token')")
    shared.client.headers["Authorization"] = f"Bearer {token}"
    item_id = await ui.invoke("a red circle on a blue background")
    finished = shared.finished(item_id)
    assert finished["status"] == "completed", finished.get("error_message")
    assert finished["user_email"] == "admin@example.com"
    await expect(ui.thumbnails().first).to_be_visible()
    predicate = "e => e.complete && e.naturalWidth > 0"
    await page.wait_for_function(f"[...document.querySelectorAll('img[src*=\"/thumbnail\"]')].some({predicate})")
    assert ui.wrong == []
