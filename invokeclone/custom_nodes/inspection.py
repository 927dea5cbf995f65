"""Asking another process what packs hold, so that none of their code runs in the server.

A pack that ends the process, or takes too long, fails alone: those after it are asked about in a new one.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from invokeclone.custom_nodes.describe import Description
from invokeclone.kit.process.child_process import ChildProcess, LineTooLong

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
    child = await ChildProcess.start(
        (*command, str(folder), *names), line_limit=LONGEST_LINE, stdin=False, stderr=False
    )
    try:
        while line := await asyncio.wait_for(child.line(), patience):
            told = orjson.loads(line)
            if "begins" in told:
                current, error = told["begins"], "importing it ended the process"
            else:
                found[told["name"]] = Inspected(
                    told["error"], told["missing"], {"nodes": told["nodes"], "outputs": told["outputs"]}
                )
    except TimeoutError:
        error = f"importing it took over {patience:.0f} s"
    except LineTooLong:
        error = f"its description is over {LONGEST_LINE // 1024**2} MiB"
    except orjson.JSONDecodeError:
        error = "importing it ended the process"
    finally:
        await child.close()
    return found if len(found) == len(names) else {**found, current: found.get(current, Inspected(error))}
