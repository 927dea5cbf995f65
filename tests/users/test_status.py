"""What a client learns before anybody has signed in."""

from invokeclone.kit.resources import Resources
from invokeclone.users.api import router
from tests.rooms import serving


async def test_single_user_needs_no_setup(resources: Resources) -> None:
    async with serving(resources, router) as client:
        answer = await client.get("/api/v1/auth/status")
    assert answer.status_code == 200
    assert answer.json() == {
        "setup_required": False,
        "multiuser_enabled": False,
        "strict_password_checking": False,
        "admin_email": None,
    }
