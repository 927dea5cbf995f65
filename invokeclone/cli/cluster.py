"""`invokeclone cluster`: keep workers running on the machines of a cluster."""

import argparse
import asyncio
import os
import signal
import sys

from invokeclone.cli.main import FAILED, CommandError
from invokeclone.cluster import ray_engine
from invokeclone.cluster.crew import ClusterError, Crew, WorkerRefused
from invokeclone.cluster.host import TOKEN_VARIABLE
from invokeclone.server.joined.address import ServerAddress


def run(arguments: argparse.Namespace) -> int:
    """Keep workers running until stopped; return the exit code."""
    address = ServerAddress(arguments.join)
    _ = address.socket_url
    token = _token(arguments)
    try:
        ray_engine.connect(arguments.address, allow_unauthenticated=arguments.allow_unauthenticated)
        try:
            asyncio.run(_run(arguments, address, token))
        finally:
            ray_engine.disconnect()
    except (ClusterError, WorkerRefused) as error:
        raise CommandError(str(error), FAILED) from error
    return 0


def _token(arguments: argparse.Namespace) -> str:
    """Return the worker's token; arguments cannot have it, because other accounts of the machine can read them."""
    token = os.environ.pop(TOKEN_VARIABLE, "")  # the processes of a local cluster need not see it
    if arguments.token_file is not None:
        try:
            token = arguments.token_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"cannot read the token file {arguments.token_file}: {error}") from error
    if not token.strip():
        raise CommandError(
            f"give the worker's token with --token-file or {TOKEN_VARIABLE}; `invokeclone worker token create NAME` on the "
            "server prints one"
        )
    return token.strip()


async def _run(arguments: argparse.Namespace, address: ServerAddress, token: str) -> None:
    engine = ray_engine.RayEngine(address.url, on_gpus=not arguments.cpu, cpus=arguments.cpus, root=arguments.root)
    crew = Crew(
        engine,
        workers=arguments.workers,
        token=token,
        cpus=arguments.cpus,
        on_gpus=not arguments.cpu,
        say=_say,
        local_url=address.is_loopback,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, crew.stop, float(arguments.drain))
    await crew.run()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
