"""Quotas of users: defaults and exceptions, who is exempt, what counts as used, and the routes of administrators."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, text, update

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.kit.times import now
from invokeclone.tables import images
from invokeclone.users import quotas
from invokeclone.users.quotas import Allowance, DailyQuotaReached
from invokeclone.users.store import SYSTEM_ID, UserNotFound
from tests.accounts import account

Limited = Callable[..., Settings]


@pytest.fixture
def limited(settings: Settings) -> Limited:
    def act(pending: int | None = None, daily: int | None = None) -> Settings:
        values = {"max_pending_items_per_user": pending, "max_images_per_user_per_day": daily}
        return settings.model_copy(update=values)

    return act


async def set_quota(database: Database, user_id: str, **values: int | None) -> None:
    async with database.write() as connection:
        await quotas.change(connection, user_id, values)


async def allowed(database: Database, settings: Settings, user_id: str) -> Allowance | None:
    return await database.transact(lambda connection: quotas.allowance(connection, settings, user_id))


async def add_images(database: Database, user_id: str, *names: str, **values: Any) -> None:
    row = {"image_origin": "internal", "image_category": "general", "width": 8, "height": 8, "user_id": user_id}
    times = {"created_at": now(), "updated_at": now()}
    async with database.write() as connection:
        for name in names:
            await connection.execute(insert(images).values(image_name=name, **(row | times | values)))


async def test_there_is_no_quota_unless_one_is_set(database: Database, settings: Settings) -> None:
    alice = await account(database, "alice")
    for user_id in (alice.user_id, SYSTEM_ID, "deleted"):
        assert await allowed(database, settings, user_id) is None


async def test_defaults_do_not_apply_to_administrators(database: Database, limited: Limited) -> None:
    alice, admin = await account(database, "alice"), await account(database, "root", is_admin=True)
    settings = limited(pending=3, daily=0)
    assert await allowed(database, settings, admin.user_id) is None
    assert await allowed(database, settings, SYSTEM_ID) is None
    with pytest.raises(DailyQuotaReached):
        await allowed(database, settings, alice.user_id)
    assert await allowed(database, limited(pending=3), alice.user_id) == Allowance(3, 3)


async def test_an_exception_applies_to_its_user_only_until_it_is_reset(database: Database, limited: Limited) -> None:
    alice, bob = await account(database, "alice"), await account(database, "bob")
    settings = limited(pending=3)
    await set_quota(database, alice.user_id, pending_items=7)
    await set_quota(database, SYSTEM_ID, pending_items=1)
    assert await allowed(database, settings, alice.user_id) == Allowance(7, 7)
    assert await allowed(database, settings, bob.user_id) == Allowance(3, 3)
    assert await allowed(database, settings, SYSTEM_ID) == Allowance(1, 1)
    await set_quota(database, alice.user_id, pending_items=None)
    assert await allowed(database, settings, alice.user_id) is None
    async with database.write() as connection:
        await quotas.reset(connection, alice.user_id)
    assert await allowed(database, settings, alice.user_id) == Allowance(3, 3)


async def test_images_of_today_count_without_intermediates_and_uploads(database: Database, limited: Limited) -> None:
    alice = await account(database, "alice")
    settings = limited(daily=2)
    await add_images(database, alice.user_id, "a.png")
    await add_images(database, alice.user_id, "b.png", is_intermediate=True)
    await add_images(database, alice.user_id, "c.png", image_category="user", image_origin="external")
    await add_images(database, alice.user_id, "d.png", created_at="2020-01-01 12:00:00.000")
    await add_images(database, "bob", "e.png", "f.png")
    assert (await quotas.get(database, settings, alice.user_id)).images_per_day.used == 1
    assert await allowed(database, settings, alice.user_id) is None
    async with database.write() as connection:
        await connection.execute(update(images).where(images.c.image_name == "b.png").values(is_intermediate=False))
    with pytest.raises(DailyQuotaReached, match="at most 2 images per day") as caught:
        await allowed(database, settings, alice.user_id)
    assert 0 < int(caught.value.headers["Retry-After"]) <= 86_400


async def test_changed_categories_and_stars_change_no_quota(database: Database, limited: Limited) -> None:
    alice = await account(database, "alice")
    await add_images(database, alice.user_id, "a.png", "b.png")
    await add_images(database, alice.user_id, "c.png", image_origin="external")  # uploaded to the gallery
    for changes in ({"image_category": "user"}, {"starred": True}):
        async with database.write() as connection:
            await connection.execute(update(images).where(images.c.image_name != "b.png").values(**changes))
        for user_id, used in ((alice.user_id, 2), ("bob", 0), (SYSTEM_ID, 0)):
            assert await quotas._measure(database, "images_per_day", user_id) == used


async def test_a_day_begins_at_midnight_utc(
    database: Database, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await account(database, "alice")
    for user_id in (alice.user_id, SYSTEM_ID):
        for time in ("2026-03-28 23:59:59.999", "2026-03-29 00:00:00.000", "2026-03-29 23:59:59.999"):
            await add_images(database, user_id, f"{user_id}{time}.png", created_at=time)
    for moment, used in (
        ("2026-03-29 00:00:00.000", 2),
        ("2026-03-29 23:59:59.999", 2),
        ("2026-03-30 00:00:00.000", 0),
    ):
        monkeypatch.setattr(quotas, "now", lambda moment=moment: moment)
        for user_id in (alice.user_id, SYSTEM_ID):
            assert await quotas._measure(database, "images_per_day", user_id) == used
    at = datetime(2026, 3, 29, 23, 59, 59, 900_000, tzinfo=UTC)
    assert DailyQuotaReached(2, at).headers == {"Retry-After": "1"}


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize(("statement", "index"), [(quotas._OF_ACCOUNT, "owned"), (quotas._OF_SYSTEM, "newest")])
async def test_results_of_a_day_are_counted_with_an_index(database: Database, statement: Any, index: str) -> None:
    sql, values = statement._compiled
    async with database.read() as connection:
        rows = await connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"), values | {"user_id": "u", "date": "2026"})
        plan = [row[3] for row in rows]
    assert any(f"SEARCH images USING INDEX ix_images_{index} (" in step and "created_at>" in step for step in plan), (
        plan
    )


async def test_unknown_users_have_no_quotas(database: Database, settings: Settings) -> None:
    with pytest.raises(UserNotFound):
        await quotas.get(database, settings, "nobody")
    with pytest.raises(UserNotFound):
        await set_quota(database, "nobody", pending_items=1)


@pytest.fixture
async def admin(multiuser: Resources, visit: Any) -> httpx.AsyncClient:
    admin = await account(multiuser.database, "root", is_admin=True)
    client: httpx.AsyncClient = visit(admin.token)
    return client


@pytest.mark.parametrize(
    "body", [{"pending_items": -1}, {"images_per_day": "many"}, {"pending": 3}, {"pending_items": 10**9}, []]
)
async def test_invalid_quotas_are_refused(multiuser: Resources, admin: httpx.AsyncClient, body: Any) -> None:
    alice = await account(multiuser.database, "alice")
    answer = await admin.patch(f"users/{alice.user_id}/quota", json=body)
    assert answer.status_code == 422, answer.text


async def test_administrators_set_quotas_and_users_see_theirs(
    multiuser: Resources, admin: httpx.AsyncClient, visit: Any
) -> None:
    alice = await account(multiuser.database, "alice")
    path = f"users/{alice.user_id}/quota"
    answer = await admin.patch(path, json={"pending_items": 5, "images_per_day": None})
    assert answer.status_code == 200, answer.text
    expected = {
        "user_id": alice.user_id,
        "pending_items": {"limit": 5, "is_default": False, "used": 0},
        "images_per_day": {"limit": None, "is_default": False, "used": 0},
    }
    assert answer.json() == expected
    assert (await visit(alice.token).get("me/quota")).json() == expected
    assert (await admin.get(path)).json() == expected
    assert (await admin.patch(path, json={})).json() == expected
    reset = (await admin.delete(path)).json()
    assert reset["pending_items"] == {"limit": None, "is_default": True, "used": 0}
    assert (await admin.get("users/nobody/quota")).status_code == 404
