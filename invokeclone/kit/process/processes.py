"""Process checks, and child processes that end with their parent."""

import contextlib
import ctypes
import os
import signal
import sys

PARENT = "INVOKECLONE_PARENT_PID"
"""Environment variable with the process id of the parent."""
_PR_SET_PDEATHSIG = 1


def is_running(pid: str) -> bool:
    """Return whether the process with this id runs; false for text that is not a number.

    On Windows every number counts as running, because `os.kill` would end the process there.
    """
    if not pid.isdecimal():
        return False
    if sys.platform == "win32":
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def child_environment(changes: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process that will call `end_with_parent`: ours with `changes`."""
    return {**os.environ, **(changes or {}), PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Have Linux kill this process (SIGKILL) when the thread that started it ends. Call it before anything else.

    Without this a process notices the end of its parent only when it reads from it, thus not while C code holds the
    interpreter lock. Other systems have no equivalent: there, such a call runs to its end.
    """
    parent = os.environ.pop(PARENT, None)
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and str(os.getppid()) != parent:
        os._exit(1)  # the parent has ended before prctl took effect
