"""Other processes of this machine: whether one runs, and processes of ours that end with the one that started them."""

import contextlib
import ctypes
import os
import signal
import sys

PARENT = "INVOKECLONE_PARENT_PID"
"""Environment variable with the number of the process that started one of ours."""
_PR_SET_PDEATHSIG = 1


def is_running(pid: str) -> bool:
    """Tell whether the process with this number runs, as for a folder that bears its owner's; text that is none runs not.

    On Windows every number counts as running: there, asking this way would end the process.
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
    """Return the environment of a process that will call `end_with_parent`: ours with `changes`."""
    return {**os.environ, **(changes or {}), PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Have Linux end this process (SIGKILL) when the thread that started it ends, whatever it is doing: call it first of all.

    Without this a process notices the end of its parent when it reads from it, thus not while C code holds the interpreter.
    Other systems have nothing like it: there, such a call is waited for.
    """
    parent = os.environ.pop(PARENT, None)
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and str(os.getppid()) != parent:
        os._exit(1)  # it ended before
