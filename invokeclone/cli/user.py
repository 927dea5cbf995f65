"""`invokeclone user …`: the accounts of a root, also while its server runs (which notices within half a minute).

A password is asked for, or read from the first line of the standard input; it is never an argument, which others could see.
An API key is made here and written to the standard output alone, once; what there is to say about it goes to the error output.
"""

import argparse
import asyncio
import contextlib
import getpass
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

from pydantic import ValidationError

from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.users import keys, service, store
from invokeclone.users.schemas import AdminUserCreateRequest, AdminUserUpdateRequest, UserDTO

CHANGES = {
    "promote": (AdminUserUpdateRequest(is_admin=True), "is an administrator"),
    "demote": (AdminUserUpdateRequest(is_admin=False), "is no administrator"),
    "enable": (AdminUserUpdateRequest(is_active=True), "may sign in"),
    "disable": (AdminUserUpdateRequest(is_active=False), "may not sign in, and what was signed in has ended"),
}


def run(arguments: argparse.Namespace) -> int:
    """Do what `action` says; return the exit code."""
    settings = settings_for(arguments, level="warning")
    actions: dict[str, Callable[[Resources, argparse.Namespace], Awaitable[None]]] = {
        "list": _list,
        "add": _add,
        "passwd": _passwd,
        "delete": _delete,
        "key": _key,
    }
    asyncio.run(_act(settings, actions.get(arguments.action, _change), arguments))
    return 0


async def _act(
    settings: Settings, act: Callable[[Resources, argparse.Namespace], Awaitable[None]], arguments: argparse.Namespace
) -> None:
    async with _open_resources(settings) as resources:
        await act(resources, arguments)


@contextlib.asynccontextmanager
async def _open_resources(settings: Settings) -> AsyncIterator[Resources]:
    resources = Resources(settings, Database(settings.database_path), Bus())
    try:
        await resources.database.migrate()
        yield resources
    finally:
        await resources.database.close()


async def _find(resources: Resources, email: str) -> UserDTO:
    async with resources.database.read() as connection:
        account = await store.find(connection, email)
    if account is None:
        raise CommandError(f"no user has the address {email}")
    return account.user


def _password(arguments: argparse.Namespace) -> str:
    """Return the password that was piped in, or typed twice without being shown."""
    if arguments.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise CommandError("no terminal to ask for a password at: pipe it in with --password-stdin")
    typed = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != typed:
        raise CommandError("these are two different passwords")
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
        raise CommandError(f"{arguments.email} is not an e-mail address") from error
    user = await service.create(resources, request)
    sys.stdout.write(f"added {user.email}\n")
    if not resources.settings.multiuser:
        sys.stderr.write("invokeclone: nobody signs in before the settings say `multiuser: true`\n")


async def _passwd(resources: Resources, arguments: argparse.Namespace) -> None:
    user = await _find(resources, arguments.email)
    await service.change(resources, user.user_id, AdminUserUpdateRequest(password=_password(arguments)))
    sys.stdout.write(f"{user.email} has a new password, and what was signed in has ended\n")


async def _delete(resources: Resources, arguments: argparse.Namespace) -> None:
    user = await _find(resources, arguments.email)
    await service.remove(resources, user.user_id)
    sys.stdout.write(f"deleted {user.email}; what the user made stays\n")


async def _change(resources: Resources, arguments: argparse.Namespace) -> None:
    user = await _find(resources, arguments.email)
    change, outcome = CHANGES[arguments.action]
    await service.change(resources, user.user_id, change)
    sys.stdout.write(f"{user.email} {outcome}\n")


async def _key(resources: Resources, arguments: argparse.Namespace) -> None:
    actions = {"add": _add_key, "list": _list_keys, "revoke": _revoke_key}
    await actions[arguments.key_action](resources, arguments)


async def _add_key(resources: Resources, arguments: argparse.Namespace) -> None:
    """Write a new key of the user's, of `system` when nobody is named in single-user mode."""
    multiuser = resources.settings.multiuser
    if arguments.email is None and multiuser:
        raise CommandError("whose key? say --email EMAIL")
    user_id = store.SYSTEM_ID if arguments.email is None else (await _find(resources, arguments.email)).user_id
    if user_id == store.SYSTEM_ID and multiuser:
        raise CommandError("the system user's keys are of no use in multi-user mode: name an account")
    first = not await keys.has_keys(resources.database)
    text = await keys.make(resources.database, user_id, arguments.name)
    sys.stdout.write(f"{text}\n")
    sys.stderr.write("invokeclone: keep the key: it is shown this once\n")
    if first and not multiuser:
        sys.stderr.write("invokeclone: from now on programs that speak other servers' APIs need a key\n")


async def _list_keys(resources: Resources, arguments: argparse.Namespace) -> None:
    user_id = None if arguments.email is None else (await _find(resources, arguments.email)).user_id
    api_keys = await keys.list_all(resources.database, user_id)
    width = max((len(key.email) for key in api_keys), default=0)
    for key in api_keys:
        used = key.last_used_at[:16] if key.last_used_at else "never"
        sys.stdout.write(f"{key.id}  {key.prefix}  {key.email.ljust(width)}  used {used.ljust(16)}  {key.name}\n")


async def _revoke_key(resources: Resources, arguments: argparse.Namespace) -> None:
    """End the key with this id or these first letters, if that is one key."""
    api_keys = await keys.list_all(resources.database)
    matches = [key for key in api_keys if arguments.key in (key.id, key.prefix)]
    if len(matches) > 1:
        raise CommandError("several keys begin so: say the id")
    if not matches:
        raise CommandError("there is no such key; `invokeclone user key list` shows them")
    await keys.revoke(resources.database, matches[0].id)
    sys.stdout.write(f"revoked {matches[0].name}\n")
    if len(api_keys) == 1 and not resources.settings.multiuser:
        sys.stderr.write("invokeclone: that was the last key: programs that speak other servers' APIs need none now\n")
