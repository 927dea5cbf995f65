"""Inspection of packs in a separate process, so that none of their code runs in the server.

A pack that ends the process or takes too long fails alone: the remaining ones are inspected in a new process.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from invokeclone.custom_nodes.describe import Description
from invokeclone.kit.process.child_process import ChildProcess, LineTooLong

COMMAND = (sys.executable, "-m", "invokeclone.custom_nodes.describe_process")
TIMEOUT_S = 90.0
MAX_LINE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Inspection:
    """Result of importing a pack."""

    error: str | None = None
    missing: bool = False
    """Whether the error is a missing library."""
    description: Description = field(default_factory=lambda: {"nodes": [], "outputs": []})


async def inspect(
    folder: Path, names: Sequence[str], *, timeout_s: float = TIMEOUT_S, command: Sequence[str] = COMMAND
) -> dict[str, Inspection]:
    """Inspect the packs in `folder`; return the results by name. Each may take up to `timeout_s` seconds."""
    results: dict[str, Inspection] = {}
    while waiting := [name for name in names if name not in results]:
        results |= await _inspect_some(folder, waiting, timeout_s, command)
    return results


async def _inspect_some(
    folder: Path, names: Sequence[str], timeout_s: float, command: Sequence[str]
) -> dict[str, Inspection]:
    """Inspect packs in one process; return at least one result, and all of them unless a pack stops the process."""
    results: dict[str, Inspection] = {}
    current, error = names[0], "the process that imports it cannot be started"
    child = await ChildProcess.start(
        (*command, str(folder), *names), line_limit=MAX_LINE_BYTES, stdin=False, stderr=False
    )
    try:
        while line := await asyncio.wait_for(child.line(), timeout_s):
            message = orjson.loads(line)
            if "begins" in message:
                current, error = message["begins"], "importing it ended the process"
            else:
                results[message["name"]] = Inspection(
                    message["error"], message["missing"], {"nodes": message["nodes"], "outputs": message["outputs"]}
                )
    except TimeoutError:
        error = f"importing it took more than {timeout_s:.0f} s"
    except LineTooLong:
        error = f"its description is larger than {MAX_LINE_BYTES // 1024**2} MiB"
    except orjson.JSONDecodeError:
        error = "importing it ended the process"
    finally:
        await child.close()
    return results if len(results) == len(names) else {**results, current: results.get(current, Inspection(error))}
