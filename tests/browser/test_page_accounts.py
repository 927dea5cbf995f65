"""The built-in page with accounts: setup, signing in and out, and a sign-in that expires while the page is open."""

import contextlib
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from playwright.async_api import TimeoutError as BrowserTimeout

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.users import store
from tests.browser.conftest import create_in, offer_model
from tests.browser.painter import Painter

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMAIL, PASSWORD = "admin@example.com", "Right-Passw0rd"
TOKEN = "localStorage.getItem('auth_token')"


@pytest.fixture(scope="module")
def app(settings: Settings, migrated: Path) -> Application:
    return create_in(settings.model_copy(update={"multiuser": True}), migrated)


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(blank: Page, url: str) -> Page:
    """Open the page as somebody who is not signed in."""
    await offer_model(blank)
    await blank.goto(url)
    await expect(blank.locator("#account")).to_be_visible()
    return blank


async def create_administrator(page: Page) -> None:
    await page.get_by_label("E-mail address").fill(EMAIL)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_label("Password again").fill(PASSWORD)
    await page.get_by_role("button", name="Create the account").click()
    await expect(page.locator("#link")).to_have_attribute("data-state", "online")
    await expect(page.get_by_role("button", name="Invoke")).to_be_enabled()


async def sign_in(page: Page, password: str = PASSWORD, email: str = EMAIL) -> None:
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def test_the_first_visitor_creates_the_administrator_and_generates_an_image(
    visitor: Page, url: str, painter: Painter
) -> None:
    await expect(visitor.get_by_role("heading", name="Create the administrator's account")).to_be_visible()
    await visitor.get_by_label("E-mail address").fill(EMAIL)
    await visitor.get_by_label("Password", exact=True).fill(PASSWORD)
    await visitor.get_by_label("Password again").fill("another")
    await visitor.keyboard.press("Enter")
    await expect(visitor.locator("#account-error")).to_have_text("The two passwords differ.")
    await create_administrator(visitor)
    await expect(visitor.locator("#account")).to_be_hidden()
    await visitor.get_by_label("Prompt", exact=True).fill("a red circle")
    await visitor.get_by_role("button", name="Invoke").click()
    await expect(visitor.locator(".tile")).to_have_count(1)
    thumbnail = visitor.locator(".tile img")
    await expect(thumbnail).to_have_js_property("complete", True)
    await expect(thumbnail).not_to_have_js_property("naturalWidth", 0)
    await visitor.reload()
    await expect(visitor.locator(".tile")).to_have_count(1)
    assert len(painter.items) == 1
    other = await visitor.context.new_page()
    await other.goto(url)
    await other.get_by_role("button", name="Sign out").click()
    await expect(visitor.locator("#account")).to_be_visible()
    await other.close()


async def test_signing_out_and_in_again(visitor: Page, app: Application) -> None:
    await create_administrator(visitor)
    await visitor.get_by_label("Prompt", exact=True).fill("a secret")
    await visitor.get_by_role("button", name="Sign out").click()
    await expect(visitor.get_by_role("heading", name="Sign in")).to_be_visible()
    assert await visitor.evaluate(TOKEN) is None
    await expect(visitor.locator("#prompt")).to_have_value("")
    await visitor.keyboard.press("Escape")
    await expect(visitor.locator("#account")).to_be_visible()
    await sign_in(visitor, "wrong")
    await expect(visitor.locator("#account-error")).to_have_text("Incorrect email or password")
    await sign_in(visitor)
    await expect(visitor.locator("#account")).to_be_hidden()
    await expect(visitor.locator("#link")).to_have_attribute("data-state", "online")
    assert await visitor.evaluate(TOKEN) is not None
    await visitor.evaluate("localStorage.setItem('auth_token', 'outdated')")
    await visitor.reload()
    await expect(visitor.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_an_expired_sign_in_keeps_entries_for_the_same_user_alone(
    visitor: Page, app: Application, painter: Painter
) -> None:
    await create_administrator(visitor)
    database = app.services.get(Resources).database
    async with database.write() as connection:
        found = await store.find(connection, EMAIL)
        assert found is not None
        administrator = found.user.user_id
        other = await store.add(
            connection, email="other@example.com", display_name=None, password_hash=found.password_hash, is_admin=True
        )

    async def expire() -> None:
        async with database.write() as connection:
            await store.change(connection, administrator, token_epoch=store.next_token_epoch())
        with contextlib.suppress(BrowserTimeout):  # another request of the page may be the first to be refused
            await visitor.get_by_role("button", name="Invoke").click(timeout=2_000)
        await expect(visitor.locator("#account-text")).to_contain_text("no longer valid")

    await visitor.get_by_label("Prompt", exact=True).fill("worth keeping")
    await expire()
    await expect(visitor.locator(".toast")).to_have_count(0)
    await sign_in(visitor)
    await expect(visitor.locator("#prompt")).to_have_value("worth keeping")
    await visitor.get_by_role("button", name="Invoke").click()
    await expect(visitor.locator(".tile")).to_have_count(1)
    await expire()
    await sign_in(visitor, email=other.email)
    await expect(visitor.locator("#link")).to_have_attribute("data-state", "online")
    await expect(visitor.locator("#prompt")).to_have_value("")
