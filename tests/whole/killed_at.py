"""`invokeclone` with a process that kills itself (-9) at a transition of an installation: `KILL_AT=waiting>downloading:after`."""

import os
import signal
import sys
from typing import Any

from invokeclone.cli.main import main
from invokeclone.models.install import states

_transition, _, _side = os.environ["KILL_AT"].partition(":")
_apply = states.apply


def _at(job: Any, to: Any, *arguments: Any) -> Any:
    is_at_transition = f"{job.state}>{to}" == _transition
    if is_at_transition and _side == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = _apply(job, to, *arguments)
    if is_at_transition:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


states.apply = _at
sys.exit(main(["serve", *sys.argv[1:]]))
