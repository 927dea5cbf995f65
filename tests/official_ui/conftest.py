"""The official web UI, both bundles, in Chromium, against a real server with the embedded model.

`scripts/test` fetches the bundles into `.cache/webui` (`invokeclone webui install`); without them, or without Chromium, these
tests are skipped. Nothing of a bundle is in this repository.
"""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Response,
    async_playwright,
    expect,
)

from tests import tiny_upscalers
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.official_ui.events import Events
from tests.server_process import Server

BUNDLES = Path(__file__).parents[2] / ".cache" / "webui"
OLDER, NEWEST = "6.8.1", "6.14.2"
in_both_versions = pytest.mark.parametrize("server", [OLDER, NEWEST], indirect=True)
in_newest_first = pytest.mark.parametrize(
    "server", [pytest.param(OLDER, marks=pytest.mark.slow), NEWEST], indirect=True
)
"""The older bundle does the same; it is run with the slow tests."""
in_newest = pytest.mark.parametrize("server", [NEWEST], indirect=True)
PATIENCE = 90_000
"""Milliseconds that a busy machine may take for what takes a moment."""

expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/official_ui" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


_SERVERS: dict[str, Server] = {}
"""The servers that run, by the version of their bundle: the tests of this folder share them."""


def has_bundle(version: str) -> bool:
    return (BUNDLES / version / "index.html").exists()


def start_server(root: Path, version: str, **environment: str) -> Server:
    """Start a server with a bundle in its root; skips the test without the bundle or Chromium."""
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium")
    if not has_bundle(version):
        pytest.skip(f"the web UI {version} is not in .cache/webui (scripts/test fetches it)")
    shutil.copytree(BUNDLES / version, root / "webui" / version)
    (root / "webui" / "active").write_text(f"{version}\n")
    return Server(root).start(PYTHONPATH=tiny_upscalers.search_path(), **environment)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Return the server of a bundle. Tests remove the models that they install."""
    version: str = request.param
    if version not in _SERVERS:
        _SERVERS[version] = start_server(tmp_path_factory.mktemp("official") / "root", version)
    return _SERVERS[version]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Stop the servers after the last test of this folder."""
    if nextitem is None or not nextitem.path.is_relative_to(Path(__file__).parent):
        while _SERVERS:
            _, running = _SERVERS.popitem()
            running.client.close()
            running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Run one Chromium for all tests of a file: starting it takes longer than many a test."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def context(browser: Browser, server: Server) -> AsyncIterator[BrowserContext]:
    """Keep what Chromium has loaded of a bundle. The UI itself keeps its state on the server."""
    browser_context = await browser.new_context(viewport={"width": 1500, "height": 950})
    yield browser_context
    await browser_context.close()


class UI:
    """A page of the UI, and what went wrong on it: failed requests, console errors, exceptions."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server
        self.version = (server.root / "webui" / "active").read_text().strip()
        self.wrong: list[str] = []
        self.forgiven: list[str] = []
        """Patterns of what goes wrong by the UI's own doing."""
        self.events = Events(page)
        page.on("response", self._record_response)
        page.on("requestfailed", lambda request: self._record_failure(request.url, request.failure))
        page.on("console", self._record_console)
        page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))

    def _record_response(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {response.request.method} {response.url}")

    def _record_failure(self, url: str, failure: str | None) -> None:
        # What the page itself gives up (a picture it no longer shows) and what leads out of this machine is no fault of ours.
        if url.startswith(self.server.url) and failure != "net::ERR_ABORTED":
            self.wrong.append(f"failed {url} {failure}")

    def _record_console(self, line: ConsoleMessage) -> None:
        if line.type == "error" and "ERR_" not in line.text and "status of" not in line.text:
            self.wrong.append(f"console: {line.text}")

    async def open(self) -> "UI":
        news = self.page.get_by_text("What's New in Invoke")
        await self.page.add_locator_handler(news, self._close_news, no_wait_after=True)
        async with self.page.expect_response("**/openapi.json"):  # before it, the UI knows no node
            await self.page.goto(self.server.url)
        await expect(self.button("Invoke").first).to_be_visible()
        await asyncio.wait_for(self.events.connected.wait(), PATIENCE / 1000)
        return self

    async def _close_news(self) -> None:
        await self.page.locator(".chakra-popover__close-btn").evaluate_all("all => all.forEach(one => one.click())")

    async def tab(self, name: str) -> None:
        await self.page.get_by_label(name, exact=True).first.click()

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("button", name=name)

    def text(self, text: str | re.Pattern[str], *, exact: bool = False) -> Locator:
        return self.page.get_by_text(text, exact=exact)

    def thumbnails(self) -> Locator:
        """Return the pictures of the gallery."""
        return self.page.locator('img[src*="/thumbnail"]')

    def picture(self, name: str) -> Locator:
        """Return one picture in the gallery; on a board's cover the same picture comes before it."""
        return self.page.locator(f'img[src*="{name}/thumbnail"]').last

    async def menu(self, of: Locator, entry: str) -> None:
        """Choose `entry` in the context menu of `of`."""
        await of.click(button="right")
        await self.page.get_by_role("menuitem", name=entry, exact=True).click()

    async def load_workflow(self, name: str) -> None:
        """Choose a workflow in the library that is open, also over unsaved changes."""
        library = self.page.get_by_role("dialog").filter(has_text="Workflow Library")
        await library.get_by_text(name, exact=True).first.click()
        anyway = self.page.get_by_role("alertdialog").get_by_role("button", name="Load", exact=True)
        closed = self.page.locator('body:not(:has([role="dialog"]:has-text("Workflow Library")))')
        await expect(anyway.or_(closed).first).to_be_visible()
        if await anyway.is_visible():
            await anyway.click()
        await expect(library).to_have_count(0)

    async def prompt(self, text: str) -> None:
        await self.page.locator("textarea").first.fill(text)

    async def invoke(self, prompt: str, *, model_settings: bool = True) -> int:
        """Generate one picture with the model's own settings, or with the UI's; return its item's id."""
        await self.prompt(prompt)
        known_ids = {item["item_id"] for item in self.items()}
        if model_settings:
            await self.page.get_by_label("modelManager.useDefaultSettings").click()
        await expect(self.button(re.compile("^Invoke")).first).to_be_enabled()
        await self.button(re.compile("^Invoke")).first.click()
        item = self.server.wait_for(lambda: [i for i in self.items() if i["item_id"] not in known_ids], "an item")[0]
        return int(item["item_id"])

    async def preview(self, item_id: int) -> dict[str, Any]:
        """Return an image of a run's progress that the page has received; the run may be over before it is drawn."""
        image = await asyncio.wait_for(self.events.wait_for_preview(item_id), PATIENCE / 1000)
        assert image["dataURL"].startswith("data:image/")
        return image

    def items(self) -> list[dict]:
        return list(self.server.client.get("/api/v1/queue/default/list_all").json())


@pytest_asyncio.fixture(loop_scope="module")
async def ui(context: BrowserContext, server: Server) -> AsyncIterator[UI]:
    """Open the UI as if for the first time; at the end nothing may have gone wrong."""
    server.client.post("/api/v1/client_state/default/delete").raise_for_status()
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    page_ui = await UI(page, server).open()
    yield page_ui
    await page.goto("about:blank")  # what a leaving page still saves arrives before the next test clears it
    await page.close()
    assert [
        line for line in page_ui.wrong if not any(re.fullmatch(pattern, line) for pattern in page_ui.forgiven)
    ] == []


@pytest.fixture
def paused(server: Server) -> Iterator[None]:
    """Let nothing in the queue begin until the end of a test, or until the test goes on with it; remove what has ended."""
    server.client.put("/api/v1/queue/default/prune").raise_for_status()
    server.client.put("/api/v1/queue/default/processor/pause").raise_for_status()
    yield
    server.client.put("/api/v1/queue/default/processor/resume").raise_for_status()
