"""`invokeclone worker`: run queue items of a server on another machine, and on the server manage the workers' tokens."""

import argparse
import asyncio
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable

from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.cli.resources import open_resources
from invokeclone.cluster.host import TOKEN_VARIABLE
from invokeclone.kit.config.settings import DEVICE
from invokeclone.kit.resources import Resources
from invokeclone.server.joined.address import ServerAddress
from invokeclone.server.joined.agent import Agent, run_agents
from invokeclone.server.joined.protocol import NAME, clean_name
from invokeclone.users import worker_tokens


def run(arguments: argparse.Namespace) -> int:
    """Join a server until stopped, or manage tokens; return the exit code."""
    if arguments.action == "token":
        return _manage_tokens(arguments)
    if arguments.join is None:
        raise CommandError("name the server to join with --join URL; tokens are managed with `worker token`")
    in_environment = os.environ.pop(TOKEN_VARIABLE, None)  # nodes of the worker process do not need it
    token = (arguments.token or in_environment or "").strip()  # a secret read from a file ends with a line break
    if not token:
        raise CommandError(
            f"give the worker's token with --token or {TOKEN_VARIABLE}; `invokeclone worker token create NAME` on the server "
            "prints one"
        )
    devices = list(dict.fromkeys(arguments.device or ["auto"]))
    for device in devices:
        if not DEVICE.match(device):
            raise CommandError(f"{device!r} is not a device: cpu, mps, cuda, cuda:N, xpu, xpu:N or auto")
    name = arguments.name or clean_name(platform.node().split(".")[0])
    if not NAME.fullmatch(name):
        raise CommandError(f"{name!r} is not a name of a machine: up to 63 letters, digits, dots, hyphens, underscores")
    settings = settings_for(arguments, uses=())
    address = ServerAddress(arguments.join)
    _ = address.socket_url
    agents = [Agent(address, token, settings=settings, name=name, device=device) for device in devices]
    asyncio.run(_run(agents, arguments.drain))
    return 0


async def _run(agents: list[Agent], drain_s: float) -> None:
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        for agent in agents:
            agent.stop(0 if stopping else drain_s)
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await run_agents(agents)


def _manage_tokens(arguments: argparse.Namespace) -> int:
    settings = settings_for(arguments, level="warning", uses=["database"])
    actions: dict[str, Callable[[Resources, argparse.Namespace], Awaitable[None]]] = {
        "create": _create,
        "list": _list,
        "revoke": _revoke,
    }

    async def act() -> None:
        async with open_resources(settings) as resources:
            await actions[arguments.token_action](resources, arguments)

    asyncio.run(act())
    return 0


async def _create(resources: Resources, arguments: argparse.Namespace) -> None:
    text = await worker_tokens.create(resources.database, arguments.token_name, arguments.days or None)
    sys.stdout.write(f"{text}\n")
    sys.stderr.write("invokeclone: save the token: it is not shown again\n")


async def _list(resources: Resources, _arguments: argparse.Namespace) -> None:
    for token in await worker_tokens.list_all(resources.database):
        used = token.last_used_at[:16] if token.last_used_at else "never"
        expires = token.expires_at[:10] if token.expires_at else "never"
        cells = (token.id, token.prefix, f"used {used.ljust(16)}", f"expires {expires.ljust(10)}", token.name)
        sys.stdout.write("  ".join(cells) + "\n")


async def _revoke(resources: Resources, arguments: argparse.Namespace) -> None:
    token = await worker_tokens.revoke(resources.database, arguments.token_id)
    sys.stdout.write(f"revoked {token.name}\n")
