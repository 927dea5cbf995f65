"""A server with a page, and a Chromium to look at it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry
from invokeclone.models.records import store
from invokeclone.server.app import create_app
from tests.browser.painter import Painter

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000
"""Milliseconds that a busy machine may take for what takes a moment."""
MODEL = {
    "key": "4f2b7c1e-0000-4000-8000-000000000001",
    "hash": "blake3:00",
    "name": "Tiny shapes",
    "base": "sd-1",
    "type": "main",
    "default_settings": {"width": 128, "height": 128, "steps": 12, "cfg_scale": 4.0, "scheduler": "ddim"},
}
ON_DISK = {
    "path": "nowhere",
    "source": "nowhere",
    "source_type": "path",
    "file_size": 1,
    "format": "diffusers",
    "prediction_type": "epsilon",
    "variant": "normal",
    "repo_variant": "",
}

KEEP_NOTICES = """
const setTimer = window.setTimeout;
window.setTimeout = (run, delay, ...rest) => setTimer(run, [4000, 9000].includes(delay) ? 2 ** 31 - 1 : delay, ...rest);
"""
"""Lets short notices stay, which a busy machine would otherwise remove before a test looks at them."""

expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="there is no Chromium")
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
            if not CHROMIUM.exists():
                item.add_marker(skip)


def is_bug(line: ConsoleMessage) -> bool:
    """Tell errors of the page from what the browser says of answers that a test refuses on purpose."""
    return line.type == "error" and not line.text.startswith("Failed to load resource")


@pytest.fixture
def app(settings: Settings, laid_out: None) -> FastAPI:
    return create_app(settings, worker_command=None)


@asynccontextmanager
async def serving(app: FastAPI, port: int = 0) -> AsyncIterator[int]:
    """Serve an application for a while, at a port that is returned."""
    config = uvicorn.Config(app, port=port, log_level="error", ws="websockets-sansio", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await task


async def add_model(app: FastAPI) -> None:
    async with app.services.get(Resources).database.write() as connection:
        await store.add(connection, registry.parse(MODEL | ON_DISK))


async def offer_model(page: Page) -> None:
    """Let the page see only this model: the embedded one takes a worker to run."""
    await page.route("**/api/v2/models/?*", lambda route: route.fulfill(json={"models": [MODEL]}))


@pytest_asyncio.fixture(loop_scope="module")
async def url(app: FastAPI) -> AsyncIterator[str]:
    async with serving(app) as port:
        await add_model(app)
        yield f"http://127.0.0.1:{port}/"


@pytest_asyncio.fixture(loop_scope="module")
async def painter(app: FastAPI, url: str) -> AsyncIterator[Painter]:
    del url
    new_painter = Painter(app.services.get(Resources))
    task = asyncio.create_task(new_painter.work())
    yield new_painter
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Run one Chromium for all tests of a file: starting it takes longer than many a test."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    browser_context = await browser.new_context(viewport={"width": 1360, "height": 860}, color_scheme="dark")
    await browser_context.add_init_script(KEEP_NOTICES)
    yield browser_context
    await browser_context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext, url: str) -> AsyncIterator[Page]:
    """Open the page with one model; any of its errors fails the test."""
    browser_page = await context.new_page()
    errors: list[str] = []
    browser_page.set_default_timeout(PATIENCE)
    browser_page.on("pageerror", lambda error: errors.append(str(error)))
    browser_page.on("console", lambda line: errors.append(line.text) if is_bug(line) else None)
    await offer_model(browser_page)
    await browser_page.goto(url)
    await browser_page.wait_for_selector('#link[data-state="online"]')
    yield browser_page
    assert errors == []
