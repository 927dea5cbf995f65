"""Clock readings in the two forms the wire uses; it knows no time zones but UTC."""

import time
from datetime import UTC, datetime


def now() -> str:
    """Return the UTC time as `YYYY-MM-DD HH:MM:SS.mmm`, the form of every record's times."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def timestamp() -> int:
    """Return whole seconds since the epoch, the form of every event's time."""
    return int(time.time())
