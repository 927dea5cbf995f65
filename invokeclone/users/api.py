"""Account routes: sign-in and sign-out, the own account, and all accounts for admins.

These need a token in single-user mode too, except where there is nothing to protect. An API key can only read its own
account.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from invokeclone.kit.requests import Needs, Read, Reads, Write, services_of
from invokeclone.users import passwords, quotas, service, store, tokens
from invokeclone.users.attempts import Attempts
from invokeclone.users.current import MEDIA_COOKIE, CurrentAccount, CurrentUser, SignedIn, SignedInAdmin
from invokeclone.users.schemas import (
    AdminUserCreateRequest,
    AdminUserUpdateRequest,
    GeneratePasswordResponse,
    LoginRequest,
    LoginResponse,
    LogoutResponse,
    MediaCookieResponse,
    QuotaChanges,
    QuotaDTO,
    SetupRequest,
    SetupResponse,
    SetupStatusResponse,
    UserDTO,
    UserProfileUpdateRequest,
)
from invokeclone.users.service import LoginClient
from invokeclone.users.signin import SignIn

router = APIRouter(prefix="/api/v1/auth", tags=["authentication"])

UserId = Annotated[str, Path(description="The account's id.")]


def _login_client(request: Request) -> LoginClient:
    """Return the client's address with the application's shared counter of failed attempts."""
    attempts = services_of(request).get_or_make(Attempts)
    return LoginClient(attempts, request.client.host if request.client else "unknown")


Client = Annotated[LoginClient, Depends(_login_client)]


def _set_cookie(request: Request, response: Response, sign_in: SignIn) -> None:
    """Set the cookie that authenticates a browser's requests for image files; not readable by scripts."""
    response.set_cookie(
        MEDIA_COOKIE,
        sign_in.media_token(),
        max_age=max(sign_in.expires - int(time.time()), 0),
        path=f"{request.scope.get('root_path', '')}/api/v1",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


@router.get("/status", operation_id="get_setup_status_api_v1_auth_status_get")
async def get_setup_status(needs: Needs) -> SetupStatusResponse:
    """Return whether users sign in on this server, and whether the first admin has yet to be created."""
    return await service.setup_status(needs)


@router.post("/setup", operation_id="setup_admin_api_v1_auth_setup_post")
async def setup_admin(needs: Needs, body: SetupRequest) -> SetupResponse:
    """Create the first admin; refused if there is one already."""
    return SetupResponse(success=True, user=await service.set_up(needs, body))


@router.post("/login", operation_id="login_api_v1_auth_login_post")
async def login(
    request: Request, response: Response, needs: Needs, client: Client, body: LoginRequest
) -> LoginResponse:
    """Sign in: returns the token and sets a cookie that gives access to image files."""
    sign_in, user = await service.log_in(needs, client, body)
    _set_cookie(request, response, sign_in)
    expires_in = tokens.lifetime(remember_me=body.remember_me)
    return LoginResponse(token=sign_in.token(), user=user, expires_in=expires_in)


@router.post("/logout", operation_id="logout_api_v1_auth_logout_post")
async def logout(request: Request, response: Response, _sign_in: SignedIn) -> LogoutResponse:
    """Delete the cookie; a token stays valid until it expires, so the client has to discard it."""
    path = f"{request.scope.get('root_path', '')}/api/v1"
    secure = request.url.scheme == "https"
    response.delete_cookie(MEDIA_COOKIE, path=path, secure=secure, httponly=True, samesite="lax")
    return LogoutResponse(success=True)


@router.post("/media-cookie", operation_id="refresh_media_cookie_api_v1_auth_media_cookie_post")
async def refresh_media_cookie(request: Request, response: Response, _user: CurrentUser) -> MediaCookieResponse:
    """Renew the cookie; does nothing without accounts."""
    sign_in = getattr(request.state, "sign_in", None)
    if sign_in is not None:
        _set_cookie(request, response, sign_in)
    return MediaCookieResponse(success=True)


@router.get("/me", operation_id="get_current_user_info_api_v1_auth_me_get")
async def get_current_user_info(account: CurrentAccount, connection: Read) -> UserDTO:
    """Get the own account; works with an API key too, to find its owner."""
    return await store.get(connection, account.user_id)


@router.patch("/me", operation_id="update_current_user_api_v1_auth_me_patch")
async def update_current_user(
    request: Request, needs: Needs, client: Client, sign_in: SignedIn, changes: UserProfileUpdateRequest
) -> UserDTO:
    """Change the own name or password; a new password revokes all tokens except the one returned with the response."""
    user = await service.change_profile(needs, client, sign_in, changes)
    request.state.sign_in = service.renew(sign_in, user)
    return user


@router.get("/generate-password", operation_id="generate_password_api_v1_auth_generate_password_get")
async def generate_password(_sign_in: SignedIn) -> GeneratePasswordResponse:
    """Get a random password that satisfies the strict rule."""
    return GeneratePasswordResponse(password=passwords.generate())


@router.get("/users", operation_id="list_users_api_v1_auth_users_get")
async def list_users(_admin: SignedInAdmin, connection: Read) -> list[UserDTO]:
    """List all accounts, the newest first."""
    return await store.list_all(connection)


@router.post("/users", operation_id="create_user_api_v1_auth_users_post", status_code=201)
async def create_user(_admin: SignedInAdmin, needs: Needs, body: AdminUserCreateRequest) -> UserDTO:
    """Create an account."""
    return await service.create(needs, body)


@router.get("/users/{user_id}", operation_id="get_user_api_v1_auth_users__user_id__get")
async def get_user(_admin: SignedInAdmin, connection: Read, user_id: UserId) -> UserDTO:
    """Get an account."""
    return await store.get(connection, user_id)


@router.patch("/users/{user_id}", operation_id="update_user_api_v1_auth_users__user_id__patch")
async def update_user(
    request: Request, sign_in: SignedInAdmin, needs: Needs, user_id: UserId, changes: AdminUserUpdateRequest
) -> UserDTO:
    """Change an account; a new password or disabling it revokes its tokens."""
    user = await service.change(needs, user_id, changes)
    if user_id == sign_in.user_id:
        request.state.sign_in = service.renew(sign_in, user)
    return user


@router.delete("/users/{user_id}", operation_id="delete_user_api_v1_auth_users__user_id__delete", status_code=204)
async def delete_user(request: Request, sign_in: SignedInAdmin, needs: Needs, user_id: UserId) -> None:
    """Delete an account; its records are kept."""
    await service.remove(needs, user_id)
    if user_id == sign_in.user_id:
        request.state.sign_in = None


@router.get("/me/quota", operation_id="get_own_quota")
async def get_own_quota(user: CurrentUser, needs: Needs, source: Reads) -> QuotaDTO:
    """Get the own quotas and what is used of them."""
    return await quotas.get(source, needs.settings, user.user_id)


@router.get("/users/{user_id}/quota", operation_id="get_user_quota")
async def get_user_quota(_admin: SignedInAdmin, needs: Needs, source: Reads, user_id: UserId) -> QuotaDTO:
    """Get the quotas of a user and what is used of them."""
    return await quotas.get(source, needs.settings, user_id)


@router.patch("/users/{user_id}/quota", operation_id="update_user_quota")
async def update_user_quota(
    _admin: SignedInAdmin, needs: Needs, connection: Write, user_id: UserId, changes: QuotaChanges
) -> QuotaDTO:
    """Set quotas of a user instead of the defaults; they apply to administrators too."""
    await quotas.change(connection, user_id, changes.model_dump(exclude_unset=True))
    return await quotas.get(connection, needs.settings, user_id)


@router.delete("/users/{user_id}/quota", operation_id="reset_user_quota")
async def reset_user_quota(_admin: SignedInAdmin, needs: Needs, connection: Write, user_id: UserId) -> QuotaDTO:
    """Let the default quotas apply to a user again."""
    await quotas.reset(connection, user_id)
    return await quotas.get(connection, needs.settings, user_id)
