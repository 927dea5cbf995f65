"""Fetching packs from a git repository on the web or a local folder, without shell, hooks, submodules or prompts.

git accesses the web only through the download gateway, so that its address rules apply; it uses https only and reads no
local configuration. URLs for ssh and git's own protocol are converted to https.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from invokeclone.downloads.gateway import open_gateway
from invokeclone.downloads.web import WebClient
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files import paths
from invokeclone.kit.process.offload import in_thread

TIMEOUT_S = 120.0
SCHEMES = ("https", "ssh", "git", "file")
MAX_BYTES = 1024 * 1024 * 1024
"""Maximum download size in bytes of a repository."""
_SSH_SHORT = re.compile(r"[\w.-]+@(?P<host>\w[\w.-]*):(?P<path>[^:\s]+)")
_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "safe.directory=*"),
    *("-c", "credential.helper="),
    *("-c", "http.followRedirects=initial"),
    *("-c", "protocol.ext.allow=never"),
)
_DROPPED = re.compile(r"(?i)(https?|all|no|ftp)_proxy|GIT_.*|SSH_.*")
"""Environment variables that would redirect git's traffic or make it run other programs."""
_ERROR_TAIL_CHARS = 300


class SourceError(Exception):
    """The pack could not be fetched; the text says why."""


async def fetch(source: str, target: Path, settings: Settings, *, timeout_s: float = TIMEOUT_S) -> None:
    """Fetch the pack from `source` to `target`, which must not exist; raises SourceError and removes partial files."""
    local = _local(source)
    if local is not None and not await in_thread(local.is_dir):
        raise SourceError(f"folder not found: {local}")
    try:
        if local is None:
            await _clone_from_web(_address(source), target, settings, timeout_s)
        elif await in_thread(_is_repository, local):
            await _clone(local.as_uri(), target, timeout_s, protocol="file")
        else:
            await in_thread(_copy, local, target)
    except BaseException:
        await in_thread(shutil.rmtree, target, ignore_errors=True)
        raise


def _local(source: str) -> Path | None:
    """Return the path of a local folder; None for a URL."""
    if source.startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    path = Path(source).expanduser() if source.startswith("~") else Path(source)
    return path if path.is_absolute() else None


def _address(source: str) -> str:
    """Return the https URL of a repository; raises SourceError."""
    if short := _SSH_SHORT.fullmatch(source):
        return f"https://{short['host']}/{short['path'].lstrip('/')}"
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in SCHEMES or not host or host.startswith("-"):
        raise SourceError(f"use a URL with the scheme {', '.join(SCHEMES)}, or the absolute path of a folder")
    if parts.scheme == "https":
        return source
    name = f"[{host}]" if ":" in host else host
    return (
        f"https://{name}{parts.path}" if port is None or parts.scheme == "ssh" else f"https://{name}:{port}{parts.path}"
    )


def _is_repository(folder: Path) -> bool:
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir())


def _copy(folder: Path, target: Path) -> None:
    if paths.real(target).is_relative_to(paths.real(folder)):
        raise SourceError(f"{folder} contains the folder of the node packs, so it cannot be copied there")
    ignored = shutil.ignore_patterns("__pycache__", ".git", "*.pyc")
    try:
        shutil.copytree(folder, target, symlinks=True, ignore=ignored)
    except (OSError, shutil.Error) as error:
        raise SourceError(f"{folder} cannot be copied: {error}") from error


async def _clone_from_web(address: str, target: Path, settings: Settings, timeout_s: float) -> None:
    """Clone through the gateway; if it refused a request, add the reason to the error."""
    web = WebClient(settings)
    async with open_gateway(web, limit=MAX_BYTES) as proxy:
        try:
            await _clone(address, target, timeout_s, protocol="https", options=("-c", f"http.proxy={proxy.url}"))
        except SourceError as error:
            raise SourceError(f"{error}{''.join(f'; {reason}' for reason in proxy.refusals[:1])}") from error


async def _clone(address: str, target: Path, timeout_s: float, *, protocol: str, options: Sequence[str] = ()) -> None:
    command = ("git", *_OPTIONS, *options, "clone", "--quiet", "--depth", "1", "--no-recurse-submodules", "--template=")
    status, output = await _run((*command, "--", address, str(target)), _environment(protocol), timeout_s)
    if status:
        raise SourceError(f"git could not clone it: {output}")


def _environment(protocol: str) -> dict[str, str]:
    """Return git's environment: no configuration, no other proxy, only one protocol."""
    environment = {name: value for name, value in os.environ.items() if not _DROPPED.fullmatch(name)}
    return environment | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": protocol,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }


async def _run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
    """Run git to its end; return its exit status and the end of its error output."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SourceError("git is not installed on this machine") from error
    try:
        _stdout, output = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError as error:
        raise SourceError(f"git took more than {timeout_s:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    return process.returncode or 0, output.decode("utf-8", "replace").strip()[-_ERROR_TAIL_CHARS:]
