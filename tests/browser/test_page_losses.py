"""What the built-in page says when something is missing or lost, and that it recovers by itself; on a phone, too."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, Route, ViewportSize, WebSocketRoute, expect

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, store
from invokeclone.server.app import create_app
from tests.browser.conftest import PATIENCE, add_model, create_in, offer_model, serving
from tests.browser.painter import Painter

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE: ViewportSize = {"width": 390, "height": 844}


@pytest_asyncio.fixture(loop_scope="module")
async def phone(page: Page) -> AsyncIterator[Page]:
    await page.set_viewport_size(PHONE)
    yield page


async def test_progress_and_result_are_in_view_on_a_phone_wherever_it_is_scrolled(
    phone: Page, painter: Painter
) -> None:
    for scroll in (0, 10_000):
        painter.go.clear()
        await phone.evaluate(f"scrollTo(0, {scroll})")
        await phone.get_by_label("Prompt", exact=True).press("Control+Enter")
        await expect(phone.locator("#preview")).to_be_in_viewport(ratio=0.9)
        await expect(phone.locator("#progress-message")).to_be_in_viewport(ratio=0.9)
        painter.go.set()
        await expect(phone.locator("#progress")).to_be_hidden()
    await phone.evaluate("scrollTo(0, 0)")
    await phone.get_by_role("button", name="Invoke").click()
    await phone.get_by_role("button", name="Show").last.click()
    await expect(phone.locator("#full")).to_be_in_viewport()


async def work_at(app: Application) -> tuple[Painter, asyncio.Task[None]]:
    painter = Painter(app.services.get(Resources))
    return painter, asyncio.create_task(painter.work())


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_run_lost_with_the_server_is_reported_and_can_be_run_again(
    context: BrowserContext, tmp_path: Path, migrated: Path
) -> None:
    """The server stops during a run and starts again at the same port; the page, left alone, finds out and says so."""
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    await offer_model(page)
    settings = Settings(root=tmp_path / "root", device="cpu", precision="float32", log_format="plain")
    first = create_in(settings, migrated)
    async with serving(first) as port:
        await add_model(first)
        painter, task = await work_at(first)
        painter.go.clear()
        await page.goto(f"http://127.0.0.1:{port}/")
        await page.get_by_role("button", name="Invoke").click()
        await expect(page.locator("#preview")).to_be_visible()
        await end(task)
    await expect(page.locator("#problem")).to_contain_text("The run in progress may be lost.")
    await expect(page.locator("#progress-message")).to_have_text("Waiting for the server")

    second = create_app(settings, worker_command=None)
    async with serving(second, port):
        await expect(page.locator("#problem")).to_be_hidden()
        await expect(page.locator("#progress")).to_be_hidden()
        toast = page.locator(".toast")
        await expect(toast).to_contain_text("1 run was canceled before the image was finished")
        _, task = await work_at(second)
        await toast.get_by_role("button", name="Run again").click()
        await expect(page.locator(".tile")).to_have_count(1)
        await end(task)


async def test_a_run_that_ended_while_the_page_was_closed_is_reported(page: Page, painter: Painter) -> None:
    painter.go.clear()
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator("#preview")).to_be_visible()
    address = page.url
    await page.goto("about:blank")
    async with painter.resources.database.read() as connection:
        (item_id,) = await store.list_ids(connection, "default")
    await claims.finish(painter.resources, item_id, "failed", error=("ValueError", "no paint left", "traceback"))
    painter.go.set()
    await page.goto(address)
    await expect(page.locator(".toast span")).to_have_text("Failed: no paint left")
    await page.get_by_role("button", name="Dismiss").click()
    await page.reload()
    await expect(page.locator("#link")).to_have_attribute("data-state", "online")
    await expect(page.locator(".toast")).to_have_count(0)


async def test_failed_requests_say_why_and_can_be_repeated(blank: Page, url: str) -> None:
    page = blank
    failures: list[tuple[int, str | None]] = []

    async def answer(route: Route) -> None:
        if not failures:
            await route.continue_()
            return
        status, detail = failures[-1]
        if detail is None:
            await route.fulfill(status=status, body="<html>bad gateway</html>")
        else:
            await route.fulfill(status=status, json={"detail": detail})

    await page.route("**/api/v2/models/capabilities", answer)
    await page.route("**/api/v1/images/?*", answer)
    for failure, words in (
        ((403, "Admin privileges required"), "Admin privileges required"),
        ((503, "The database is busy: try again"), "The database is busy: try again"),
        ((502, None), "The server responded with status 502."),
    ):
        failures.append(failure)
        await page.goto(url)
        await expect(page.locator("#model-hint")).to_have_text(f"The list of models could not be loaded: {words}")
        await expect(page.locator("#failed-text")).to_have_text(words)
        await expect(page.get_by_role("button", name="Invoke")).to_be_disabled()
    failures.clear()
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator("#empty")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("button", name="Invoke")).to_be_enabled()


async def test_a_server_that_cannot_be_asked_at_first_is_asked_again(context: BrowserContext, url: str) -> None:
    page = await context.new_page()
    await page.clock.install()
    await page.route("**/api/v1/auth/status", lambda route: route.abort())
    await page.goto(url)
    await expect(page.locator("#problem")).to_contain_text("The server is not reachable.")
    await page.unroute("**/api/v1/auth/status")
    await page.clock.run_for(4_000)
    await expect(page.locator("#problem")).to_be_hidden()


async def test_a_full_queue_and_a_paused_one_are_explained(page: Page) -> None:
    await page.request.put(f"{page.url}api/v1/queue/default/processor/pause")
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator("#progress-message")).to_have_text("The queue is paused")
    full = {"enqueued": 1, "requested": 3, "item_ids": []}
    await page.route("**/enqueue_prompt", lambda route: route.fulfill(json=full))
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator(".toast")).to_have_text("The queue is full: 1 of 3 were added.")


async def test_a_refused_connection_says_why_and_is_tried_again(context: BrowserContext, url: str) -> None:
    page = await context.new_page()
    refusing = True

    def serve(socket: WebSocketRoute) -> None:
        if not refusing:
            socket.connect_to_server()
            return
        socket.on_message(lambda _: socket.send('44{"message":"the limit of 1 sockets is reached"}'))
        socket.send('0{"sid":"1","pingInterval":25000,"pingTimeout":20000}')

    await page.route_web_socket("**/ws/socket.io/**", serve)
    await page.goto(url)
    await expect(page.locator("#problem")).to_have_text("the limit of 1 sockets is reached")
    refusing = False
    await expect(page.locator("#link")).to_have_attribute("data-state", "online")
    await expect(page.locator("#problem")).to_be_hidden()
