"""Fetching a pack: from a git address, or from a folder of this machine. No shell, no hooks, no submodules, no questions."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

PATIENCE_S = 120.0
PROTOCOLS = ("https", "ssh", "git", "file")
_SSH_SHORT = re.compile(r"[\w.-]+@[\w.-]+:[^:\s]+")
_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "safe.directory=*"),
    *("-c", "credential.helper="),
    *("-c", "http.followRedirects=initial"),
)
_LAST_WORDS = 300


class SourceError(Exception):
    """The pack could not be fetched; the text says why."""


async def fetch(source: str, target: Path, *, patience: float = PATIENCE_S) -> None:
    """Put the pack from `source` at `target`, which must not be there yet; raises SourceError with nothing left behind."""
    local = _local(source)
    if local is not None and not await asyncio.to_thread(local.is_dir):
        raise SourceError(f"there is no folder {local}")
    try:
        if local is None:
            await _clone(_address(source), target, patience)
        elif await asyncio.to_thread(_is_repository, local):
            await _clone(local.as_uri(), target, patience)
        else:
            await asyncio.to_thread(_copy, local, target)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        raise


def _local(source: str) -> Path | None:
    """Return the folder that is meant, None for an address."""
    if source.startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    path = Path(source).expanduser() if source.startswith("~") else Path(source)
    return path if path.is_absolute() else None


def _address(source: str) -> str:
    """Return an address that git may be given; raises SourceError."""
    if _SSH_SHORT.fullmatch(source) and not source.startswith("-"):
        return source
    parts = urlsplit(source)
    if parts.scheme not in PROTOCOLS or not parts.hostname or parts.hostname.startswith("-"):
        raise SourceError(f"give an address that begins with {', '.join(PROTOCOLS)}, or the full path of a folder")
    return source


def _is_repository(folder: Path) -> bool:
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir())


def _copy(folder: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", ".git", "*.pyc")
    try:
        shutil.copytree(folder, target, symlinks=True, ignore=ignored)
    except (OSError, shutil.Error) as error:
        raise SourceError(f"{folder} can't be copied: {error}") from error


async def _clone(address: str, target: Path, patience: float) -> None:
    command = ("git", *_OPTIONS, "clone", "--quiet", "--depth", "1", "--no-recurse-submodules", "--template=")
    status, words = await _run((*command, "--", address, str(target)), patience)
    if status:
        raise SourceError(f"git could not clone it: {words}")


async def _run(command: Sequence[str], patience: float) -> tuple[int, str]:
    """Run git to its end; return its status and last words."""
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new",
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }
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
        _nothing, words = await asyncio.wait_for(process.communicate(), patience)
    except TimeoutError as error:
        raise SourceError(f"git took over {patience:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    return process.returncode or 0, words.decode("utf-8", "replace").strip()[-_LAST_WORDS:]
