"""One's own account, and everybody's for admins."""

import asyncio
from typing import Any

import pytest

from invokeclone.kit.resources import Resources
from invokeclone.users.events import UserAccessChangedEvent
from tests.conftest import RecordedEvents
from tests.users.conftest import PASSWORD, SignedInClients, Visit

NEW = "New-Passw0rd"


async def test_own_account_can_be_read_and_renamed(people: SignedInClients) -> None:
    alice = await people.user(await people.admin(), "alice", display_name="Alice")
    user = (await alice.get("me")).json()
    assert set(user) == {
        "user_id", "email", "display_name", "is_admin", "is_active", "created_at", "updated_at", "last_login_at",
        "token_epoch",
    }  # fmt: skip
    changed = (await alice.patch("me", json={"display_name": "Alicia"})).json()
    assert (changed["display_name"], changed["token_epoch"], changed["is_admin"]) == ("Alicia", 0, False)
    assert (await alice.patch("me", json={"display_name": None})).json()["display_name"] == "Alicia"
    assert (await alice.patch("me", json={"is_admin": True})).json()["is_admin"] is False


async def test_password_change_revokes_tokens_and_returns_a_new_one(people: SignedInClients, visit: Visit) -> None:
    alice = await people.user(await people.admin(), "alice")
    elsewhere = await people.sign_in("alice")
    answer = await alice.patch("me", json={"current_password": PASSWORD, "new_password": NEW})
    assert (answer.status_code, answer.json()["token_epoch"]) == (200, 1)
    assert (await alice.get("me")).status_code == 401
    assert (await elsewhere.get("me")).status_code == 401
    assert (await visit(answer.headers["x-refreshed-token"]).get("me")).status_code == 200
    old, new = ({"email": "alice@example.com", "password": word} for word in (PASSWORD, NEW))
    assert (await visit().post("login", json=old)).status_code == 401
    assert (await visit().post("login", json=new)).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"new_password": NEW},
        {"new_password": NEW, "current_password": ""},
        {"new_password": NEW, "current_password": "wrong"},
        {"new_password": "", "current_password": PASSWORD},
        {"new_password": NEW, "current_password": "wrong", "display_name": "X"},
    ],
)
async def test_a_password_is_not_changed_without_the_current_one(
    people: SignedInClients, change: dict[str, str]
) -> None:
    admin = await people.admin()
    answer = await admin.patch("me", json=change)
    assert answer.status_code == 400
    assert (await admin.get("me")).json()["display_name"] == "Admin", "nothing is half done"
    await people.sign_in("admin")


async def test_current_password_guesses_are_limited(people: SignedInClients) -> None:
    admin = await people.admin()
    wrong = {"new_password": NEW, "current_password": "wrong"}
    answers = [(await admin.patch("me", json=wrong)).status_code for _ in range(11)]
    assert answers == [400] * 10 + [429]


async def test_concurrent_password_changes(people: SignedInClients) -> None:
    admin = await people.admin()
    changes = [{"current_password": PASSWORD, "new_password": f"{NEW}{number}"} for number in range(4)]
    answers = await asyncio.gather(*(admin.patch("me", json=change) for change in changes))
    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 200
    assert set(codes[1:]) <= {400, 401}
    assert codes.count(200) == 1


async def test_admins_make_list_change_and_delete_accounts(people: SignedInClients) -> None:
    admin = await people.admin()
    body = {"email": "bob@example.com", "display_name": "Bob", "password": PASSWORD}
    answer = await admin.post("users", json=body)
    assert answer.status_code == 201
    bob = answer.json()
    assert (bob["email"], bob["is_admin"], bob["is_active"], bob["last_login_at"]) == (
        "bob@example.com",
        False,
        True,
        None,
    )
    listed = (await admin.get("users")).json()
    assert {user["email"] for user in listed} == {"bob@example.com", "admin@example.com"}, "system stays hidden"
    assert (await admin.get(f"users/{bob['user_id']}")).json() == bob
    changed = (await admin.patch(f"users/{bob['user_id']}", json={"is_admin": True, "display_name": "Rob"})).json()
    assert (changed["is_admin"], changed["display_name"], changed["token_epoch"]) == (True, "Rob", 0)
    deleted = await admin.delete(f"users/{bob['user_id']}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for call in (admin.get, admin.delete):
        assert (await call(f"users/{bob['user_id']}")).status_code == 404
    assert (await admin.patch(f"users/{bob['user_id']}", json={})).status_code == 404


async def test_accounts_are_listed_newest_first(people: SignedInClients) -> None:
    admin = await people.admin()
    for name in ("one", "two"):
        await asyncio.sleep(0.002)
        await people.user(admin, name)
    names = [user["email"].split("@")[0] for user in (await admin.get("users")).json()]
    assert names == ["two", "one", "admin"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"email": "admin@example.com"}, 400),
        ({"email": "system@system.invokeai"}, 400),
        ({"email": "nobody"}, 422),
        ({"password": ""}, 400),
        ({"password": None}, 422),
        ({"is_admin": "perhaps"}, 422),
    ],
)
async def test_invalid_accounts_are_refused(people: SignedInClients, change: dict[str, Any], status: int) -> None:
    admin = await people.admin()
    body = {"email": "bob@example.com", "password": PASSWORD} | change
    assert (await admin.post("users", json=body)).status_code == status
    assert len((await admin.get("users")).json()) == 1


async def test_email_is_unique_even_with_concurrent_requests(people: SignedInClients) -> None:
    admin = await people.admin()
    body = {"email": "bob@example.com", "password": PASSWORD}
    answers = await asyncio.gather(*(admin.post("users", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 400, 400, 400]


async def test_an_admins_new_password_for_a_user_ends_their_tokens(people: SignedInClients) -> None:
    admin = await people.admin()
    alice = await people.user(admin, "alice")
    assert (await admin.patch(f"users/{people.ids['alice']}", json={"password": ""})).status_code == 400
    assert (await alice.get("me")).status_code == 200
    assert (await admin.patch(f"users/{people.ids['alice']}", json={"password": NEW})).json()["token_epoch"] == 1
    assert (await alice.get("me")).status_code == 401


async def test_admin_changing_their_own_password_stays_signed_in(people: SignedInClients, visit: Visit) -> None:
    admin = await people.admin()
    answer = await admin.patch(f"users/{people.ids['admin']}", json={"password": NEW})
    assert (await admin.get("me")).status_code == 401
    assert (await visit(answer.headers["x-refreshed-token"]).get("me")).status_code == 200


async def test_closing_the_own_account_returns_no_token(people: SignedInClients) -> None:
    admin = await people.admin()
    other = await people.user(admin, "other", is_admin=True)
    answer = await other.patch(f"users/{people.ids['other']}", json={"is_active": False})
    assert (answer.status_code, "x-refreshed-token" in answer.headers) == (200, False)
    third = await people.user(admin, "third", is_admin=True)
    answer = await third.delete(f"users/{people.ids['third']}")
    assert (answer.status_code, "x-refreshed-token" in answer.headers) == (204, False)
    assert (await third.get("me")).status_code == 401


async def test_last_admin_cannot_be_removed(people: SignedInClients) -> None:
    admin = await people.admin()
    admin_path = f"users/{people.ids['admin']}"
    closed = await people.user(admin, "closed", is_admin=True)
    await admin.patch(f"users/{people.ids['closed']}", json={"is_active": False})
    assert (await closed.get("me")).status_code == 401
    for change in ({"is_admin": False}, {"is_active": False}, {"is_admin": False, "is_active": False}):
        assert (await admin.patch(admin_path, json=change)).status_code == 400
    assert (await admin.delete(admin_path)).status_code == 400
    assert (await admin.get("me")).json()["is_admin"] is True
    assert (await admin.delete(f"users/{people.ids['closed']}")).status_code == 204


async def test_two_admins_cannot_remove_each_other_at_once(people: SignedInClients) -> None:
    admin = await people.admin()
    other = await people.user(admin, "other", is_admin=True)
    answers = await asyncio.gather(
        admin.patch(f"users/{people.ids['other']}", json={"is_admin": False}),
        other.patch(f"users/{people.ids['admin']}", json={"is_admin": False}),
    )
    assert min(answer.status_code for answer in answers) == 200
    assert {answer.status_code for answer in answers} != {200}


async def test_system_user_is_protected_and_not_an_admin(people: SignedInClients) -> None:
    admin = await people.admin()
    system_user = (await admin.get("users/system")).json()
    assert (system_user["email"], system_user["is_admin"]) == ("system@system.invokeai", False)
    assert (await admin.delete("users/system")).status_code == 400
    for change in ({"password": NEW}, {"is_active": False}, {"display_name": "X"}, {}):
        assert (await admin.patch("users/system", json=change)).status_code == 400


async def test_only_admins_manage_accounts(people: SignedInClients, visit: Visit) -> None:
    alice = await people.user(await people.admin(), "alice")
    alice_path = f"users/{people.ids['alice']}"
    for client, status in ((alice, 403), (visit(), 401)):
        assert (await client.get("users")).status_code == status
        assert (await client.get(alice_path)).status_code == status
        assert (await client.post("users", json={"email": "x@example.com", "password": "x"})).status_code == status
        assert (await client.patch(alice_path, json={"is_admin": True})).status_code == status
        assert (await client.delete(alice_path)).status_code == status


async def test_changed_rights_emit_internal_events(
    people: SignedInClients, events: RecordedEvents, multiuser: Resources
) -> None:
    admin = await people.admin()
    await people.user(admin, "alice")
    alice = people.ids["alice"]
    for change in ({"display_name": "A"}, {"is_admin": True}, {"is_admin": True}, {"is_active": False}):
        await admin.patch(f"users/{alice}", json=change)
    await admin.delete(f"users/{alice}")
    changes = [event for event in events.sent if isinstance(event, UserAccessChangedEvent)]
    assert [(event.is_admin, event.is_active, event.token_epoch) for event in changes] == [
        (True, True, 0),
        (True, False, 1),
        (False, False, 1),
    ]
    assert {event.user_id for event in changes} == {alice}
