"""Current time in the two formats of the API, in UTC."""

import time
from datetime import UTC, datetime, timedelta


def now() -> str:
    """Return the UTC time as `YYYY-MM-DD HH:MM:SS.mmm`, the format of times in records."""
    return after(0)


def after(seconds: float) -> str:
    """Return the UTC time that is some seconds after now, or before for a negative number, as `now` does."""
    return format_time(datetime.now(UTC) + timedelta(seconds=seconds))


def format_time(moment: datetime) -> str:
    """Return a time in UTC in the format of times in records."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def timestamp() -> int:
    """Return whole seconds since the epoch, the format of times in events."""
    return int(time.time())
