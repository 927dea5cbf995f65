"""Account operations: creating the first admin, signing in, passwords, and events about changed rights.

Hashes are computed outside transactions; the following transaction checks that the account has not changed meanwhile.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.errors import BadRequest, Forbidden, Unauthorized
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import now
from invokeclone.users import passwords, store, tokens
from invokeclone.users.attempts import Attempts
from invokeclone.users.events import UserAccessChangedEvent
from invokeclone.users.schemas import (
    AdminUserCreateRequest,
    AdminUserUpdateRequest,
    LoginRequest,
    SetupRequest,
    SetupStatusResponse,
    UserDTO,
    UserProfileUpdateRequest,
)
from invokeclone.users.signin import SignIn
from invokeclone.users.store import SYSTEM_ID


class MultiuserOff(Forbidden):
    """There are no accounts in single-user mode."""

    def __init__(self) -> None:
        super().__init__("Multiuser mode is disabled: signing in is not available")


class SetUpAlready(BadRequest):
    """The first admin exists already."""

    def __init__(self) -> None:
        super().__init__("An administrator account exists already")


class WrongCredentials(Unauthorized):
    """No account has this address and password."""

    def __init__(self) -> None:
        super().__init__("Incorrect email or password")


class AccountDisabled(Forbidden):
    """The account is disabled."""

    def __init__(self) -> None:
        super().__init__("The account is disabled")


class WrongPassword(BadRequest):
    """The current password is incorrect."""

    def __init__(self) -> None:
        super().__init__("Current password is incorrect")


class LastAdmin(BadRequest):
    """The change would leave no administrator."""

    def __init__(self) -> None:
        super().__init__("This is the last administrator: it can be neither deleted, nor disabled, nor demoted")


class ProtectedUser(BadRequest):
    """The owner of single-user mode's records is not a real account."""

    def __init__(self) -> None:
        super().__init__("The system user cannot be changed or deleted")


class LoginClient(NamedTuple):
    """The client's address, and the counter of failed attempts."""

    attempts: Attempts
    address: str


async def setup_status(resources: Resources) -> SetupStatusResponse:
    """Return whether users sign in on this server, and whether the first admin has yet to be created."""
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


async def set_up(resources: Resources, request: SetupRequest) -> UserDTO:
    """Create the first admin. Raise MultiuserOff, SetUpAlready, WeakPassword or EmailTaken."""
    if not resources.settings.multiuser:
        raise MultiuserOff
    async with resources.database.read() as connection:
        await _check_no_admin(connection)
    password_hash = await _new_hash(resources, request.password)
    async with resources.database.write() as connection:
        await _check_no_admin(connection)
        return await store.add(
            connection,
            email=request.email,
            display_name=request.display_name,
            password_hash=password_hash,
            is_admin=True,
        )


async def _check_no_admin(connection: AsyncConnection) -> None:
    if await store.has_admin(connection):
        raise SetUpAlready


async def _new_hash(resources: Resources, password: str) -> str:
    passwords.check_strength(password, strict=resources.settings.strict_password_checking)
    return await passwords.hash_password(password)


async def log_in(resources: Resources, client: LoginClient, request: LoginRequest) -> tuple[SignIn, UserDTO]:
    """Return a new sign-in and its account.

    Raise MultiuserOff, TooManyAttempts, WrongCredentials or AccountDisabled.
    """
    if not resources.settings.multiuser:
        raise MultiuserOff
    client.attempts.begin(client.address, request.email)
    async with resources.database.read() as connection:
        account = await store.find(connection, request.email)
    is_match = await passwords.matches(request.password, account.password_hash if account else None)
    if account is None or not is_match:
        raise WrongCredentials
    client.attempts.record_success(client.address, request.email)
    if not account.user.is_active:
        raise AccountDisabled
    new_hash = await passwords.hash_password(request.password) if passwords.is_outdated(account.password_hash) else None
    async with resources.database.write() as connection:
        if await store.get_hash(connection, account.user.user_id) != account.password_hash:
            raise WrongCredentials
        if new_hash:
            await store.replace_hash(connection, account.user.user_id, account.password_hash, new_hash, revoke=False)
        user = await store.change(connection, account.user.user_id, last_login_at=now())
        secret = await store.secret(connection)
    if not user.is_active:
        raise AccountDisabled
    return _sign_in(user, secret, remember_me=request.remember_me), user


def _sign_in(user: UserDTO, secret: str, *, remember_me: bool) -> SignIn:
    return SignIn(
        user_id=user.user_id,
        email=user.email,
        display_name=user.display_name,
        is_admin=user.is_admin,
        token_epoch=user.token_epoch,
        remember_me=remember_me,
        expires=tokens.expiry(remember_me=remember_me),
        secret=secret,
    )


def renew(sign_in: SignIn, user: UserDTO) -> SignIn | None:
    """Return the sign-in after a change to its own account; None when the account is disabled."""
    if not user.is_active:
        return None
    return replace(sign_in, display_name=user.display_name, is_admin=user.is_admin, token_epoch=user.token_epoch)


async def get(resources: Resources, user_id: str) -> UserDTO:
    """Return an account. Raise UserNotFound."""
    async with resources.database.read() as connection:
        return await store.get(connection, user_id)


async def change_profile(
    resources: Resources, client: LoginClient, sign_in: SignIn, changes: UserProfileUpdateRequest
) -> UserDTO:
    """Change the own name or password; a new password revokes earlier tokens. Raise WrongPassword or WeakPassword."""
    hashes = await _profile_hashes(resources, client, sign_in, changes) if changes.new_password is not None else None
    async with resources.database.write() as connection:
        before = await store.get(connection, sign_in.user_id)
        if hashes and not await store.replace_hash(connection, sign_in.user_id, *hashes, revoke=True):
            raise WrongPassword
        values = {} if changes.display_name is None else {"display_name": changes.display_name}
        after = await store.change(connection, sign_in.user_id, **values)
    _emit_access_change(resources, before, after)
    return after


async def _profile_hashes(
    resources: Resources, client: LoginClient, sign_in: SignIn, changes: UserProfileUpdateRequest
) -> tuple[str, str]:
    """Check the current password; return its hash and that of the new one."""
    client.attempts.begin(client.address, sign_in.email)
    async with resources.database.read() as connection:
        current_hash = await store.get_hash(connection, sign_in.user_id)
    if not await passwords.matches(changes.current_password or "", current_hash) or current_hash is None:
        raise WrongPassword
    client.attempts.record_success(client.address, sign_in.email)
    return current_hash, await _new_hash(resources, changes.new_password or "")


# All accounts, for admins


async def create(resources: Resources, request: AdminUserCreateRequest) -> UserDTO:
    """Create an account. Raise WeakPassword or EmailTaken."""
    password_hash = await _new_hash(resources, request.password)
    async with resources.database.write() as connection:
        return await store.add(
            connection,
            email=request.email,
            display_name=request.display_name,
            password_hash=password_hash,
            is_admin=request.is_admin,
        )


async def change(resources: Resources, user_id: str, changes: AdminUserUpdateRequest) -> UserDTO:
    """Change an account; a new password or disabling it revokes its tokens.

    Raise UserNotFound, ProtectedUser, LastAdmin or WeakPassword.
    """
    values: dict[str, Any] = {
        name: getattr(changes, name)
        for name in ("display_name", "is_admin", "is_active")
        if getattr(changes, name) is not None
    }
    if changes.password is not None:
        values["password_hash"] = await _new_hash(resources, changes.password)
    async with resources.database.write() as connection:
        before = await _changeable(connection, user_id)
        closed = before.is_active and changes.is_active is False
        if closed or changes.is_admin is False:
            await _check_not_last(connection, before)
        if closed or changes.password is not None:
            values["token_epoch"] = store.next_token_epoch()
        after = await store.change(connection, user_id, **values)
    _emit_access_change(resources, before, after)
    return after


async def remove(resources: Resources, user_id: str) -> None:
    """Delete an account; its records are kept. Raise UserNotFound, ProtectedUser or LastAdmin."""
    async with resources.database.write() as connection:
        before = await _changeable(connection, user_id)
        await _check_not_last(connection, before)
        await store.remove(connection, user_id)
    _emit_access_change(resources, before, before.model_copy(update={"is_active": False, "is_admin": False}))


async def _changeable(connection: AsyncConnection, user_id: str) -> UserDTO:
    if user_id == SYSTEM_ID:
        raise ProtectedUser
    return await store.get(connection, user_id)


async def _check_not_last(connection: AsyncConnection, user: UserDTO) -> None:
    if user.is_admin and user.is_active and not await store.has_other_admin(connection, user.user_id):
        raise LastAdmin


def _emit_access_change(resources: Resources, before: UserDTO, after: UserDTO) -> None:
    rights = (after.is_admin, after.is_active, after.token_epoch)
    if rights != (before.is_admin, before.is_active, before.token_epoch):
        resources.events.emit(
            UserAccessChangedEvent(
                user_id=after.user_id, is_admin=rights[0], is_active=rights[1], token_epoch=rights[2]
            )
        )
