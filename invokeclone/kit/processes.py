"""Other processes of this machine, by number; it knows nothing of what they do."""

import os
import sys


def runs(pid: str) -> bool:
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
