"""A server with a page, and a Chromium to look at it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Route, async_playwright, expect
from sqlalchemy import delete

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service as images
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry
from invokeclone.models.records import store
from invokeclone.queue import processor
from invokeclone.queue import service as queue
from invokeclone.queue.bulk import ItemFilter
from invokeclone.server.app import create_app
from invokeclone.tables import boards, style_presets, users
from tests.browser.painter import Painter, paint

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
SCREEN: Any = {"viewport": {"width": 1360, "height": 860}, "color_scheme": "dark"}

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


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("page") / "root"
    return Settings(root=root, device="cpu", precision="float32", log_format="plain")


@pytest.fixture(scope="module")
def app(settings: Settings, migrated: Path) -> Application:
    """Create one application for all tests of a file, which takes longer than most of them; `url` empties it."""
    return create_in(settings, migrated)


def create_in(settings: Settings, migrated: Path) -> Application:
    """Create an application without workers, with a new database."""
    settings.database_path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(migrated, settings.database_path)
    settings.database_path.chmod(0o600)
    return create_app(settings, worker_command=None)


@asynccontextmanager
async def serving(app: Application, port: int = 0) -> AsyncIterator[int]:
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


async def add_model(app: Application) -> None:
    async with app.services.get(Resources).database.write() as connection:
        await store.add(connection, registry.parse(MODEL | ON_DISK))


async def offer_model(page: Page) -> None:
    """Let the page see only this model: the embedded one takes a worker to run."""

    async def answer(route: Route) -> None:
        response = await route.fetch()
        models = [model for model in (await response.json())["models"] if model["key"] == MODEL["key"]]
        await route.fulfill(response=response, json={"models": models})

    await page.route("**/api/v2/models/capabilities", answer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(app: Application) -> AsyncIterator[str]:
    async with serving(app) as port:
        await add_model(app)
        yield f"http://127.0.0.1:{port}/"


@pytest_asyncio.fixture(loop_scope="module")
async def url(app: Application, address: str) -> str:
    """Empty the server of what other tests left, and return its address."""
    resources = app.services.get(Resources)
    await processor.resume(resources)
    await queue.clear(resources, ItemFilter(queue_id=queue.DEFAULT_QUEUE))
    async with resources.database.write() as connection:
        await connection.execute(delete(boards))
        await connection.execute(delete(style_presets).where(style_presets.c.type != "default"))
        await connection.execute(delete(users).where(users.c.user_id != "system"))
    await images.delete_uncategorized(resources)
    return address


@pytest_asyncio.fixture(loop_scope="module")
async def painter(app: Application, url: str) -> AsyncIterator[Painter]:
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
    browser_context = await browser.new_context(**SCREEN)
    await browser_context.add_init_script(KEEP_NOTICES)
    yield browser_context
    await browser_context.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab(browser: Browser) -> Page:
    """Open one tab for all tests of a file: a process for each takes longer than many a test."""
    browser_context = await browser.new_context(**SCREEN)
    await browser_context.add_init_script(KEEP_NOTICES)
    browser_page = await browser_context.new_page()
    browser_page.set_default_timeout(PATIENCE)
    return browser_page


@pytest_asyncio.fixture(loop_scope="module")
async def blank(tab: Page, url: str) -> AsyncIterator[Page]:
    """Return an empty tab without anything stored; any error of the page fails the test."""
    errors: list[str] = []

    def note_error(error: Error) -> None:
        errors.append(str(error))

    def note_line(line: ConsoleMessage) -> None:
        if is_bug(line):
            errors.append(line.text)

    tab.on("pageerror", note_error)
    tab.on("console", note_line)
    await tab.set_viewport_size(SCREEN["viewport"])
    yield tab
    await tab.unroute_all(behavior="ignoreErrors")
    await tab.goto(f"{url}page/icon.svg")  # the same origin without the page's code
    await tab.evaluate("localStorage.clear(); sessionStorage.clear()")
    await tab.context.clear_cookies()
    tab.remove_listener("pageerror", note_error)
    tab.remove_listener("console", note_line)
    assert errors == []


@pytest.fixture
def image_count() -> int:
    """Return the number of images in the gallery when the page opens; tests override it by parametrizing."""
    return 0


async def fill(app: Application, count: int) -> None:
    """Add images to the gallery."""
    for number in range(count):
        await images.save(
            app.services.get(Resources),
            paint(number, (64, 64)),
            category=ImageCategory.GENERAL,
            origin=ResourceOrigin.INTERNAL,
        )


@pytest_asyncio.fixture(loop_scope="module")
async def page(blank: Page, app: Application, url: str, image_count: int) -> Page:
    """Open the page with one model."""
    await fill(app, image_count)
    await offer_model(blank)
    await blank.goto(url)
    await blank.wait_for_selector('#link[data-state="online"]')
    return blank
