"""What a client learns before anybody has signed in, and how the first admin comes to be."""

import asyncio
import json

import pytest

from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.users.api import router
from invokeclone.users.passwords import check_strength
from tests.applications import serving
from tests.users.conftest import PASSWORD, SignedInClients, Visit

FIRST = {"email": "admin@example.com", "display_name": "Admin", "password": PASSWORD}


async def test_single_user_needs_no_setup_and_refuses_it(resources: Resources) -> None:
    async with serving(resources, router) as client:
        answer = await client.get("/api/v1/auth/status")
        assert answer.status_code == 200
        assert answer.json() == {
            "setup_required": False,
            "multiuser_enabled": False,
            "strict_password_checking": False,
            "admin_email": None,
        }
        assert (await client.post("/api/v1/auth/setup", json=FIRST)).status_code == 403
        login = {"email": "admin@example.com", "password": PASSWORD}
        assert (await client.post("/api/v1/auth/login", json=login)).status_code == 403


async def test_setup_is_required_until_an_admin_exists(visit: Visit) -> None:
    client = visit()
    assert (await client.get("status")).json()["setup_required"] is True
    answer = await client.post("setup", json=FIRST)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    user = answer.json()["user"]
    assert (user["email"], user["display_name"], user["is_admin"], user["is_active"], user["token_epoch"]) == (
        "admin@example.com",
        "Admin",
        True,
        True,
        0,
    )
    assert user["last_login_at"] is None
    assert "password" not in answer.text
    status = (await client.get("status")).json()
    assert (status["setup_required"], status["multiuser_enabled"], status["admin_email"]) == (False, True, None)


async def test_second_setup_is_refused_even_concurrently(visit: Visit) -> None:
    bodies = [FIRST | {"email": f"admin{number}@example.com"} for number in range(4)]
    answers = await asyncio.gather(*(visit().post("setup", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert (await visit().post("setup", json=FIRST)).status_code == 400


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"password": ""}, 400),
        ({"password": "x" * 1025}, 400),
        ({"password": "\ud800"}, 422),
        ({"email": "nobody"}, 422),
        ({"email": "a@b"}, 422),
        ({"email": "a b@example.com"}, 422),
        ({"email": "a@-example.com"}, 422),
        ({"email": "a@example..com"}, 422),
        ({"email": f"{'a' * 65}@example.com"}, 422),
        ({"email": f"a@{'a.' * 130}com"}, 422),
        ({"email": ""}, 422),
        ({"password": None}, 422),
        ({"email": "a@localhost"}, 200),
        ({"email": "a@box.local"}, 200),
        ({"email": "first.last+tag@example.co.uk"}, 200),
        ({"password": "simple"}, 200),
        ({"display_name": None}, 200),
    ],
)
async def test_setup_validates_its_input(visit: Visit, change: dict[str, str], status: int) -> None:
    body = json.dumps(FIRST | change)  # httpx itself can't write a lone surrogate
    answer = await visit().post("setup", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("password", "status"),
    [("Abcdef12", 200), ("Abcdef1", 400), ("abcdefg1", 400), ("ABCDEFG1", 400), ("Abcdefgh", 400), ("", 400)],
)
async def test_strict_passwords(app: Application, visit: Visit, password: str, status: int) -> None:
    resources: Resources = app.services.get(Resources)
    strict = resources.settings.model_copy(update={"strict_password_checking": True})
    app.services.add(Resources, Resources(strict, resources.database, resources.events))
    assert (await visit().get("status")).json()["strict_password_checking"] is True
    assert (await visit().post("setup", json=FIRST | {"password": password})).status_code == status


async def test_generated_passwords_are_strong_and_need_authentication(people: SignedInClients, visit: Visit) -> None:
    admin = await people.admin()
    generated = {(await admin.get("generate-password")).json()["password"] for _ in range(20)}
    assert len(generated) == 20
    for password in generated:
        assert len(password) == 16
        check_strength(password, strict=True)
    assert (await visit().get("generate-password")).status_code == 401
