"""Statistics of a session for the log: calls and seconds per node type, memory, cache statistics."""

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

GB = 1024**3
_STATM = "/proc/self/statm"
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


@dataclass(slots=True)
class _Line:
    calls: int = 0
    seconds: float = 0.0
    vram: int = 0
    cached: int = 0


@dataclass(slots=True)
class SessionStats:
    """The statistics of one session, created when it starts."""

    lines: dict[str, _Line] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def add(self, node_type: str, seconds: float, vram: int = 0) -> None:
        """Count a call of `node_type` that took `seconds` and increased VRAM use by `vram` bytes."""
        line = self.lines.setdefault(node_type, _Line())
        line.calls += 1
        line.seconds += seconds
        line.vram = max(line.vram, vram)

    def reuse(self, node_type: str) -> None:
        """Count a call of `node_type` served from the invocation cache; it is also counted by `add`."""
        self.lines.setdefault(node_type, _Line()).cached += 1

    @property
    def elapsed(self) -> float:
        """Seconds since the session started."""
        return time.perf_counter() - self.began

    def block(self, session_id: str, models: dict[str, Any] | None) -> str:
        """Return the log text; `models` are the model cache's statistics, None if no model was loaded."""
        wall = self.elapsed
        width = max([len(name) for name in self.lines] + [20])
        rows = [f"Graph stats: {session_id}", f"{'Node':>{width}} {'Calls':>6} {'Seconds':>9} {'VRAM Change':>13}"]
        for name, line in self.lines.items():
            rows.append(f"{name:>{width}} {line.calls:>6} {line.seconds:>8.3f}s {line.vram / GB:>+11.3f}G")
        busy = sum(line.seconds for line in self.lines.values())
        rows.append(f"TOTAL GRAPH EXECUTION TIME: {busy:.3f}s   TOTAL GRAPH WALL TIME: {wall:.3f}s")
        rows.append(f"RAM used by this process: {resident() / GB:.2f}G   VRAM in use: {vram_in_use() / GB:.2f}G")
        if models:
            rows.append(
                "Model cache: "
                + ", ".join(f"{name} {value}" for name, value in models.items() if not isinstance(value, dict))
            )
        return "\n".join(rows)


def resident() -> int:
    """Return the resident memory of this process in bytes (0 where the OS does not report it)."""
    try:
        with open(_STATM, "rb", buffering=0) as file:  # noqa: PTH123  (faster; read for every item)
            return int(file.read().split()[1]) * _PAGE_SIZE
    except (OSError, ValueError, IndexError):
        return 0


def vram_in_use() -> int:
    """Return the CUDA memory used by tensors in bytes; 0 without CUDA or before torch is loaded."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not getattr(cuda, "is_initialized", lambda: False)():
        return 0
    return int(cuda.memory_allocated())
