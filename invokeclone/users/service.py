"""What happens to accounts beyond SQL: setup, passwords, tokens."""

from invokeclone.kit.resources import Resources
from invokeclone.users import store
from invokeclone.users.schemas import SetupStatusResponse


async def setup_status(resources: Resources) -> SetupStatusResponse:
    """Return whether users sign in here, and whether the first admin has still to be made."""
    settings = resources.settings
    required = False
    if settings.multiuser:
        async with resources.database.read() as connection:
            required = not await store.has_admin(connection)
    return SetupStatusResponse(
        setup_required=required,
        multiuser_enabled=settings.multiuser,
        strict_password_checking=settings.strict_password_checking,
    )
