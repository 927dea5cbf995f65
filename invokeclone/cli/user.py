"""`invokeclone user …`: manage the accounts and API keys of a root; a running server notices within half a minute.

A password is asked for, or read from the first line of standard input; it is never an argument, which other users of
the machine could see. A new API key is written to standard output once; messages about it go to standard error.
"""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.cli.resources import open_resources
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.users import keys, quotas, service, store
from invokeclone.users.schemas import AdminUserCreateRequest, AdminUserUpdateRequest, UserDTO

CHANGES = {
    "promote": (AdminUserUpdateRequest(is_admin=True), "is an administrator"),
    "demote": (AdminUserUpdateRequest(is_admin=False), "is not an administrator"),
    "enable": (AdminUserUpdateRequest(is_active=True), "may sign in"),
    "disable": (AdminUserUpdateRequest(is_active=False), "may not sign in; existing sessions have ended"),
}


def run(arguments: argparse.Namespace) -> int:
    """Run the action of the arguments; return the exit code."""
    settings = settings_for(arguments, level="warning", uses=["database"])
    actions: dict[str, Callable[[Resources, argparse.Namespace], Awaitable[None]]] = {
        "list": _list,
        "add": _add,
        "passwd": _passwd,
        "delete": _delete,
        "key": _key,
        "quota": _quota,
    }
    asyncio.run(_act(settings, actions.get(arguments.action, _change), arguments))
    return 0


async def _act(
    settings: Settings, act: Callable[[Resources, argparse.Namespace], Awaitable[None]], arguments: argparse.Namespace
) -> None:
    async with open_resources(settings) as resources:
        await act(resources, arguments)


async def _find(resources: Resources, email: str) -> UserDTO:
    async with resources.database.read() as connection:
        account = await store.find(connection, email)
    if account is None:
        raise CommandError(f"no user has the email address {email}")
    return account.user


def _password(arguments: argparse.Namespace) -> str:
    """Return the password from standard input, or typed twice without echo."""
    if arguments.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise CommandError("no terminal to read a password from; pipe it in with --password-stdin")
    typed = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != typed:
        raise CommandError("the passwords do not match")
    return typed


async def _list(resources: Resources, _arguments: argparse.Namespace) -> None:
    async with resources.database.read() as connection:
        users = await store.list_all(connection)
    width = max((len(user.email) for user in users), default=0)
    for user in users:
        last_login = user.last_login_at.isoformat(" ", "minutes") if user.last_login_at else "never"
        cells = [user.email.ljust(width), "admin" if user.is_admin else "user ", "" if user.is_active else "disabled"]
        sys.stdout.write(
            "  ".join([*cells[:2], f"signed in {last_login}", cells[2], user.display_name or ""]).rstrip() + "\n"
        )


async def _add(resources: Resources, arguments: argparse.Namespace) -> None:
    try:
        request = AdminUserCreateRequest(
            email=arguments.email, display_name=arguments.name, password=_password(arguments), is_admin=arguments.admin
        )
    except ValidationError as error:
        raise CommandError(f"{arguments.email} is not a valid email address") from error
    user = await service.create(resources, request)
    sys.stdout.write(f"added {user.email}\n")
    if not resources.settings.multiuser:
        sys.stderr.write("invokeclone: users can sign in only with the setting `multiuser: true`\n")


async def _passwd(resources: Resources, arguments: argparse.Namespace) -> None:
    user = await _find(resources, arguments.email)
    await service.change(resources, user.user_id, AdminUserUpdateRequest(password=_password(arguments)))
    sys.stdout.write(f"{user.email} has a new password; existing sessions have ended\n")


async def _delete(resources: Resources, arguments: argparse.Namespace) -> None:
    user = await _find(resources, arguments.email)
    await service.remove(resources, user.user_id)
    sys.stdout.write(f"deleted {user.email}; the user's images and boards stay\n")


async def _change(resources: Resources, arguments: argparse.Namespace) -> None:
    user = await _find(resources, arguments.email)
    change, outcome = CHANGES[arguments.action]
    await service.change(resources, user.user_id, change)
    sys.stdout.write(f"{user.email} {outcome}\n")


async def _quota(resources: Resources, arguments: argparse.Namespace) -> None:
    """Set the given quotas, and print all quotas of the user."""
    if arguments.email is None and resources.settings.multiuser:
        raise CommandError("name the user whose quotas to show or set")
    user_id = store.SYSTEM_ID if arguments.email is None else (await _find(resources, arguments.email)).user_id
    limits = {"pending_items": arguments.pending, "images_per_day": arguments.images}
    async with resources.database.write() as connection:
        await quotas.reset(connection, user_id, tuple(name for name, limit in limits.items() if limit == "default"))
        values = {name: limit for name, limit in limits.items() if limit not in (None, "default")}
        await quotas.change(
            connection, user_id, {name: None if limit == "none" else limit for name, limit in values.items()}
        )
        current = await quotas.get(connection, resources.settings, user_id)
    for name, state in (("pending items", current.pending_items), ("images per day", current.images_per_day)):
        limit = "no limit" if state.limit is None else f"at most {state.limit}"
        origin = "  (default)" if state.is_default else ""
        sys.stdout.write(f"{name.ljust(14)}  {state.used} used, {limit}{origin}\n")


async def _key(resources: Resources, arguments: argparse.Namespace) -> None:
    actions = {"add": _add_key, "list": _list_keys, "revoke": _revoke_key}
    await actions[arguments.key_action](resources, arguments)


async def _add_key(resources: Resources, arguments: argparse.Namespace) -> None:
    """Print a new key of the named user, or of `system` if no user is named in single-user mode."""
    multiuser = resources.settings.multiuser
    if arguments.email is None and multiuser:
        raise CommandError("name the owner of the key with --email EMAIL")
    user_id = store.SYSTEM_ID if arguments.email is None else (await _find(resources, arguments.email)).user_id
    if user_id == store.SYSTEM_ID and multiuser:
        raise CommandError("keys of the system user do not work in multi-user mode; name another account")
    first = not await keys.has_keys(resources.database)
    text = await keys.make(resources.database, user_id, arguments.name)
    sys.stdout.write(f"{text}\n")
    sys.stderr.write("invokeclone: save the key: it is not shown again\n")
    if first and not multiuser:
        sys.stderr.write("invokeclone: from now on clients of the compatibility APIs need a key\n")


async def _list_keys(resources: Resources, arguments: argparse.Namespace) -> None:
    user_id = None if arguments.email is None else (await _find(resources, arguments.email)).user_id
    api_keys = await keys.list_all(resources.database, user_id)
    width = max((len(key.email) for key in api_keys), default=0)
    for key in api_keys:
        used = key.last_used_at[:16] if key.last_used_at else "never"
        sys.stdout.write(f"{key.id}  {key.prefix}  {key.email.ljust(width)}  used {used.ljust(16)}  {key.name}\n")


async def _revoke_key(resources: Resources, arguments: argparse.Namespace) -> None:
    """Revoke the key with this id or prefix. Raises CommandError if there is none or the prefix is ambiguous."""
    api_keys = await keys.list_all(resources.database)
    matches = [key for key in api_keys if arguments.key in (key.id, key.prefix)]
    if len(matches) > 1:
        raise CommandError("several keys have this prefix; name the id")
    if not matches:
        raise CommandError("no such key; `invokeclone user key list` shows the keys")
    await keys.revoke(resources.database, matches[0].id)
    sys.stdout.write(f"revoked {matches[0].name}\n")
    if len(api_keys) == 1 and not resources.settings.multiuser:
        sys.stderr.write("invokeclone: that was the last key: clients of the compatibility APIs need none now\n")
