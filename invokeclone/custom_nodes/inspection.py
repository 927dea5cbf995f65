"""Asking another process what packs hold, so that none of their code runs in the server.

A pack that ends the process, or takes too long, fails alone: those after it are asked about in a new one.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from invokeclone.custom_nodes.describe import Description

COMMAND = (sys.executable, "-m", "invokeclone.custom_nodes.describing")
PATIENCE_S = 90.0
LONGEST_LINE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Inspected:
    """What came of importing a pack."""

    error: str | None = None
    missing: bool = False
    """Whether the error is that a library isn't installed."""
    description: Description = field(default_factory=lambda: {"nodes": [], "outputs": []})


async def inspect(
    folder: Path, names: Sequence[str], *, patience: float = PATIENCE_S, command: Sequence[str] = COMMAND
) -> dict[str, Inspected]:
    """Return what each of the packs in `folder` holds; `patience` is how many seconds one of them may take."""
    found: dict[str, Inspected] = {}
    while waiting := [name for name in names if name not in found]:
        found |= await _some(folder, waiting, patience, command)
    return found


async def _some(folder: Path, names: Sequence[str], patience: float, command: Sequence[str]) -> dict[str, Inspected]:
    """Return what one process tells: of one pack at least, of all unless it is stopped by one of them."""
    found: dict[str, Inspected] = {}
    current, error = names[0], "the process that imports it can't be started"
    process = await asyncio.create_subprocess_exec(
        *command,
        str(folder),
        *names,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=LONGEST_LINE,
        start_new_session=True,
    )
    try:
        async for line in _lines(process, patience):
            if "begins" in line:
                current, error = line["begins"], "importing it ended the process"
            else:
                found[line["name"]] = Inspected(
                    line["error"], line["missing"], {"nodes": line["nodes"], "outputs": line["outputs"]}
                )
    except TimeoutError:
        error = f"importing it took over {patience:.0f} s"
    finally:
        await asyncio.shield(_end(process))
    return found if len(found) == len(names) else {**found, current: found.get(current, Inspected(error))}


async def _lines(process: asyncio.subprocess.Process, patience: float) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), patience):
        yield orjson.loads(line)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()
