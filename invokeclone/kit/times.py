"""Current time in the two formats of the API, in UTC."""

import time
from datetime import UTC, datetime


def now() -> str:
    """Return the UTC time as `YYYY-MM-DD HH:MM:SS.mmm`, the format of times in records."""
    return format_time(datetime.now(UTC))


def format_time(moment: datetime) -> str:
    """Return a time in UTC in the format of times in records."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def timestamp() -> int:
    """Return whole seconds since the epoch, the format of times in events."""
    return int(time.time())
