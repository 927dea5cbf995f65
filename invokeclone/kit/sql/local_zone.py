"""The name of this machine's time zone, for PostgreSQL, whose server may be in another one."""

import os
import re
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

_NAME = re.compile(r"[A-Za-z0-9_+/-]+")
_FOLDER = "zoneinfo/"


@cache
def local_zone() -> str:
    """Return the IANA name, or the current offset in POSIX's form (`<local>-05:30` for UTC+05:30) if it is unknown."""
    linked = os.path.realpath("/etc/localtime")
    for name in (os.environ.get("TZ", "").lstrip(":"), linked.partition(_FOLDER)[2]):
        if _NAME.fullmatch(name) and _is_local(name):
            return name
    offset = datetime.now().astimezone().utcoffset() or timedelta()
    minutes = int(offset.total_seconds()) // 60
    hours, rest = divmod(abs(minutes), 60)
    return f"<local>{'-' if minutes >= 0 else '+'}{hours:02}:{rest:02}"


def _is_local(name: str) -> bool:
    """Return whether a zone exists and has the current offset of this process."""
    try:
        zone = ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    at = datetime.now().astimezone()
    return at.utcoffset() == at.astimezone(zone).utcoffset()
