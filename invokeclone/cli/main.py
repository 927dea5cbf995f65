"""The commands and their arguments; each command's module is imported only when the command runs.

Top-level imports are minimal, so that `--help` and wrong arguments are answered at once.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from invokeclone.cli import import_blocking
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.version import __version__

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


class CommandError(Exception):
    """A user error, printed in one line; `status` is the exit code."""

    def __init__(self, text: str, status: int = WRONG_USE) -> None:
        super().__init__(text)
        self.status = status


class _Parser(argparse.ArgumentParser):
    """Parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = _Parser(prog="invokeclone", description="InvokeAI's API, served by FastAPI and run by worker processes.")
    top.add_argument("--version", action="version", version=f"invokeclone {__version__}")
    root_parser = _Parser(add_help=False)
    root_parser.add_argument(
        "--root", type=Path, help="folder of settings, database, models and images (default ~/invokeai)"
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _serve(commands.add_parser("serve", parents=[root_parser], help="start the server"))
    commands.add_parser("openapi", parents=[root_parser], help="print the OpenAPI document")
    _generate(commands.add_parser("generate", parents=[root_parser], help="generate one image without a server"))
    _models(commands.add_parser("models", help="list, install and delete models"), root_parser)
    _user(commands.add_parser("user", help="list, add, change and delete accounts; manage API keys"), root_parser)
    database = commands.add_parser("db", help="maintain the database").add_subparsers(dest="action", required=True)
    database.add_parser("upgrade", parents=[root_parser], help="migrate the database to the newest revision")
    copy = database.add_parser(
        "copy", parents=[root_parser], help="copy the database of a stopped server to another one"
    )
    copy.add_argument("--to", required=True, metavar="ADDRESS", help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    _worker(commands.add_parser("worker", parents=[root_parser], help="run queue items of a server"))
    _cluster(commands.add_parser("cluster", help="run workers on the machines of a cluster"), root_parser)
    _storage(
        commands.add_parser("storage", help="copy images and videos, and find files without a record"), root_parser
    )
    _webui(commands.add_parser("webui", help="install, select and remove the official web UI"), root_parser)
    return top


def _serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    command.add_argument(
        "--port", type=_port, help="port to listen on; the next free one is taken when it is busy (default 9090)"
    )


def _generate(command: argparse.ArgumentParser) -> None:
    command.add_argument("prompt", metavar="PROMPT", help="what the image should show (the prompt)")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="where to write the image (PNG, JPEG or WEBP)"
    )
    command.add_argument(
        "--negative", default="", metavar="TEXT", help="what the image should not show (the negative prompt)"
    )
    command.add_argument("--seed", type=_number(0, 2**32 - 1), help="seed of the noise (default: random)")
    command.add_argument("--steps", type=_number(1, 1000), help="denoising steps (default: the model's, or 30)")
    command.add_argument("--cfg", type=_scale, help="guidance scale, 1 or more (default: the model's, or 7.5)")
    command.add_argument("--scheduler", metavar="NAME", help="scheduler (default: the model's, or euler)")
    command.add_argument("--width", type=_size, help="pixels, a multiple of 8 (default: the model's, or 512)")
    command.add_argument("--height", type=_size, help="pixels, a multiple of 8 (default: the model's, or 512)")
    command.add_argument("--model", metavar="NAME", help="name or key of a main model (default: the first one)")
    command.add_argument(
        "--init", type=Path, metavar="FILE", help="initial image, cropped to the result's aspect ratio"
    )
    command.add_argument("--strength", type=_share, help="denoising strength, 0 to 1 (default 0.75; 1 with a mask)")
    command.add_argument(
        "--mask", type=Path, metavar="FILE", help="area of the initial image to repaint: white, or transparent"
    )
    several: dict[str, Any] = {"action": "append", "default": []}
    command.add_argument("--lora", **several, metavar="NAME[:WEIGHT]", help="LoRA to apply; may be repeated")
    command.add_argument(
        "--control",
        **several,
        metavar="NAME:FILE",
        help="ControlNet, T2I-Adapter or control LoRA, or its type (canny, depth), and its control image",
    )
    command.add_argument(
        "--reference",
        **several,
        metavar="[NAME:]FILE",
        help="reference image, and its IP-Adapter (default: the first)",
    )
    command.add_argument("--refiner", metavar="NAME", help="SDXL refiner, which runs the last fifth of the steps")


def _models(command: _Parser, root_parser: _Parser) -> None:
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", parents=[root_parser], help="show the installed models")
    install = actions.add_parser("install", parents=[root_parser], help="install a model")
    install.add_argument(
        "source", metavar="SOURCE", help="file, folder of one model or several, Hugging Face owner/name, or URL"
    )
    files = install.add_mutually_exclusive_group()
    files.add_argument(
        "--inplace", action="store_true", help="use local files where they are, instead of copying or linking them"
    )
    files.add_argument("--move", action="store_true", help="remove local files once they are in the models folder")
    delete = actions.add_parser("delete", parents=[root_parser], help="delete a model and its files")
    delete.add_argument("key", metavar="KEY", help="key or name of the model")


def _user(command: _Parser, root_parser: _Parser) -> None:
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    named = _Parser(add_help=False)
    named.add_argument("email", metavar="EMAIL", help="email address of the user")
    secret = _Parser(add_help=False)
    secret.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    actions.add_parser("list", parents=[root_parser], help="show all users")
    add = actions.add_parser(
        "add", parents=[root_parser, named, secret], help="create an account; asks for the password"
    )
    add.add_argument("--name", help="display name")
    add.add_argument("--admin", action="store_true", help="make the user an administrator")
    actions.add_parser(
        "passwd", parents=[root_parser, named, secret], help="set a new password and end the user's sessions"
    )
    for action, text in (
        ("delete", "delete an account; the user's images and boards stay"),
        ("promote", "make a user an administrator"),
        ("demote", "revoke a user's administrator rights"),
        ("enable", "allow a user to sign in again"),
        ("disable", "end a user's sessions and forbid signing in"),
    ):
        actions.add_parser(action, parents=[root_parser, named], help=text)
    quota = actions.add_parser(
        "quota", parents=[root_parser], help="show a user's quotas, or set limits other than those of the settings"
    )
    quota.add_argument(
        "email", metavar="EMAIL", nargs="?", help="email address of the user (default: the user of single-user mode)"
    )
    for option, text in (("--pending", "pending items"), ("--images", "images per day")):
        quota.add_argument(option, type=_quota, metavar="LIMIT", help=f"{text}: a number, none, or default")
    _keys(actions.add_parser("key", help="create, list and revoke API keys"), root_parser)


def _keys(command: _Parser, root_parser: _Parser) -> None:
    actions = command.add_subparsers(dest="key_action", metavar="ACTION", required=True)
    owned = _Parser(add_help=False)
    owned.add_argument("--email", metavar="EMAIL", help="email address of the keys' owner")
    add = actions.add_parser(
        "add", parents=[root_parser, owned], help="create a key and print it (it is not shown again)"
    )
    add.add_argument("name", metavar="NAME", help="what the key is for")
    actions.add_parser("list", parents=[root_parser, owned], help="show the keys and when they were last used")
    revoke = actions.add_parser("revoke", parents=[root_parser], help="revoke a key")
    revoke.add_argument("key", metavar="KEY", help="id or prefix of the key, as `list` shows it")


def _worker(command: _Parser) -> None:
    root_parser = _Parser(add_help=False)  # without a default, which would replace a --root before the action
    root_parser.add_argument("--root", type=Path, default=argparse.SUPPRESS, help="the server's root")
    command.add_argument("--join", metavar="URL", help="address of the server, such as https://host:9090")
    command.add_argument(
        "--token", help="the worker's token (default: the environment variable INVOKECLONE_WORKER_TOKEN)"
    )
    command.add_argument(
        "--device",
        action="append",
        help="device to run items on: cpu, mps, cuda:N, xpu:N, or auto (default); may be repeated, one process each",
    )
    command.add_argument("--name", help="name of this machine in lists and item details (default: its host name)")
    command.add_argument(
        "--drain",
        type=_number(0, 86_400),
        default=0,
        metavar="SECONDS",
        help="after SIGTERM or Ctrl+C, let a running item end within this time (default 0: it returns to the queue)",
    )
    actions = command.add_subparsers(dest="action", metavar="ACTION")
    token = actions.add_parser("token", help="on the server: create, list and revoke tokens of workers")
    token_actions = token.add_subparsers(dest="token_action", metavar="ACTION", required=True)
    create = token_actions.add_parser(
        "create", parents=[root_parser], help="create a token and print it (it is not shown again)"
    )
    create.add_argument("token_name", metavar="NAME", help="what the token is for")
    create.add_argument(
        "--days", type=_number(0, 3650), default=365, help="days until it expires (default 365); 0: never"
    )
    token_actions.add_parser("list", parents=[root_parser], help="show the tokens and when they were last used")
    revoke = token_actions.add_parser(
        "revoke", parents=[root_parser], help="revoke a token; its workers are disconnected"
    )
    revoke.add_argument("token_id", metavar="TOKEN", help="id or prefix of the token, as `list` shows it")


def _storage(command: _Parser, root_parser: _Parser) -> None:
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    copy = actions.add_parser(
        "copy", parents=[root_parser], help="copy what is missing or differs, and verify it; may be repeated"
    )
    address = "s3://BUCKET/PREFIX or file:///PATH"
    copy.add_argument("--to", dest="target", required=True, metavar="ADDRESS", help=f"where to copy to: {address}")
    copy.add_argument(
        "--from", dest="source", metavar="ADDRESS", help=f"where to copy from: {address} (default: the root's storage)"
    )
    orphans = actions.add_parser(
        "orphans",
        parents=[root_parser],
        help="print the files in the storage, more than a day old, that have no record",
    )
    orphans.add_argument("--delete", action="store_true", help="delete them")


def _webui(command: _Parser, root_parser: _Parser) -> None:
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    install = actions.add_parser(
        "install", parents=[root_parser], help="download the published package and serve the UI at /"
    )
    install.add_argument(
        "version", nargs="?", metavar="VERSION", help="version to install (default: the newest tested one)"
    )
    install.add_argument("--wheel", type=Path, metavar="FILE", help="use this wheel instead of downloading one")
    use = actions.add_parser("use", parents=[root_parser], help="serve an installed version, or the built-in page")
    use.add_argument("version", metavar="VERSION", help='an installed version, or "own"')
    actions.add_parser("list", parents=[root_parser], help="show the installed versions")
    remove = actions.add_parser("remove", parents=[root_parser], help="delete an installed version")
    remove.add_argument("version", metavar="VERSION", help="an installed version")


def _cluster(command: _Parser, root_parser: _Parser) -> None:
    engines = command.add_subparsers(dest="action", metavar="ENGINE", required=True)
    ray = engines.add_parser("ray", parents=[root_parser], help="keep workers running on the nodes of a Ray cluster")
    ray.add_argument(
        "--address", default="auto", help="HOST:PORT of the cluster, auto (default: this node's), or local: a new one"
    )
    ray.add_argument("--join", required=True, metavar="URL", help="address of the server, as the nodes reach it")
    ray.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with the worker token (default: the environment variable INVOKECLONE_WORKER_TOKEN)",
    )
    ray.add_argument(
        "--workers", type=_worker_count, default="auto", metavar="N", help="number of workers (default: auto, all GPUs)"
    )
    ray.add_argument("--cpu", action="store_true", help="run workers on CPUs instead of GPUs")
    ray.add_argument("--cpus", type=_number(1, 1024), default=1, metavar="N", help="CPUs per worker (default 1)")
    ray.add_argument(
        "--drain",
        type=_number(0, 86_400),
        default=30,
        metavar="SECONDS",
        help="after SIGTERM or Ctrl+C, let running items end within this time (default 30)",
    )
    ray.add_argument(
        "--allow-unauthenticated",
        action="store_true",
        help="use a cluster that needs no token; all its nodes must be on this machine",
    )


def _worker_count(text: str) -> int | str:
    return text if text == "auto" else _number(1, 10_000)(text)


def _number(minimum: int, maximum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{value} is not between {minimum} and {maximum}")
        return value

    return number


def _quota(text: str) -> int | str:
    return text if text in ("none", "default") else _number(0, 100_000_000)(text)


def _port(text: str) -> int:
    return _number(1, 65535)(text)


def _size(text: str) -> int:
    value = _number(64, 8192)(text)
    if value % 8:
        raise argparse.ArgumentTypeError(f"{value} is not a multiple of 8")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:  # NaN fails too
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _scale(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1000:  # noqa: PLR2004  (NaN fails too)
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; `arguments` defaults to the process's command line.

    Return the exit code: 0 for success, 1 for a failure, 2 for wrong use, 130 after Ctrl+C.
    """
    options = parser().parse_args(arguments)
    try:
        if arguments is None and options.command == "serve":
            import_blocking.import_socketio()
        return int(importlib.import_module(f"invokeclone.cli.{options.command}").run(options))
    except CommandError as error:
        sys.stderr.write(f"invokeclone: {error}\n")
        return error.status
    except InvokeCloneError as error:
        sys.stderr.write(f"invokeclone: {error}\n")
        return WRONG_USE
    except Exception as error:
        if (line := _storage_line(error)) is None:
            raise
        sys.stderr.write(f"invokeclone: {line}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("\ninvokeclone: interrupted\n")
        return INTERRUPTED


def _storage_line(error: Exception) -> str | None:
    """Return the message for a folder or database that cannot be used; None for an error of another kind."""
    from invokeclone.kit.files.storage_errors import startup_line

    return startup_line(error)
