"""Logging setup: handlers, formats and fields; packages only request a logger by name.

The context of a line (`action`, `item_id`, `device` …) is in fields of its record: those from logging's `extra`, and
those of `fields`, which are added to every line logged inside that block.
"""

import json
import logging
import logging.handlers
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

ROOT = "invokeclone"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_COLORS = {
    logging.DEBUG: "\033[90m",
    logging.WARNING: "\033[33m",
    logging.ERROR: "\033[31m",
    logging.CRITICAL: "\033[1;31m",
}
_FORMATS = {
    "plain": "[%(asctime)s] %(levelname)-7s %(name)s: %(message)s",
    "color": "[%(asctime)s] %(levelname)-7s %(name)s: %(message)s",
    "syslog": "%(name)s[%(process)d] <%(levelname)s> %(message)s",
    "legacy": ">> %(message)s",
}
TEXT_FIELDS = ("item_id", "device", "user_id")
"""Fields that are appended to a text line unless the message contains their value."""
_UNREMARKABLE = {"user_id": "system"}
"""Values that are left out: in single-user mode everything belongs to this user."""
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}
"""Attributes of every record; all others are fields."""
_fields: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default={})  # noqa: B039  (never changed)
_process_fields: dict[str, Any] = {}


def get(name: str) -> logging.Logger:
    """Return the logger of one package: `get("queue")` is `invokeclone.queue`."""
    return logging.getLogger(f"{ROOT}.{name}")


@contextmanager
def fields(**values: Any) -> Iterator[None]:
    """Add fields to every line logged inside the block by this thread or task, or by tasks started in it."""
    token = _fields.set({**_fields.get(), **values})
    try:
        yield
    finally:
        _fields.reset(token)


def set_process_fields(**values: Any) -> None:
    """Add fields to every line of this process, from any thread; replaces earlier ones."""
    _process_fields.clear()
    _process_fields.update(values)


class _EncodableRecord(logging.LogRecord):
    """A record whose message can be encoded: bytes of file names that are no text are written as escapes."""

    def getMessage(self) -> str:  # noqa: N802  (logging's name)
        """Return the message with lone surrogates as escapes."""
        return super().getMessage().encode("utf-8", "backslashreplace").decode("utf-8")


logging.setLogRecordFactory(_EncodableRecord)


class Fields(logging.Filter):
    """Adds the fields of the current context and the process to a record.

    Fields of the record itself take precedence.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Accept every record."""
        for name, value in (_process_fields | dict(_fields.get())).items():
            vars(record).setdefault(name, value)
        return True


class _TextFormatter(logging.Formatter):
    """Text lines; fields that the message does not contain follow its first line as `[item_id=5 device=cuda:0]`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        first, line_break, rest = record.message.partition("\n")
        unnamed = [f"{name}={value}" for name, value in _text_fields(record) if not _mentions(record.message, value)]
        if unnamed:
            record.message = f"{first} [{' '.join(unnamed)}]{line_break}{rest}"
        return super().formatMessage(record)


def _text_fields(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    values = vars(record)
    for name in TEXT_FIELDS:
        value = values.get(name)
        if value is not None and value != _UNREMARKABLE.get(name):
            yield name, str(value)


def _mentions(message: str, value: str) -> bool:
    """Return whether `value` is in the message as a whole word."""
    return re.search(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", message) is not None


class _JsonFormatter(logging.Formatter):
    """One JSON object per line.

    Keys: time (UTC), level, logger, message, process, the record's fields, and the traceback as `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        line |= {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(record).items()
            if name not in _STANDARD and name not in line
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, skipkeys=True)  # not orjson: a message may contain lone surrogates


class _ColorFormatter(_TextFormatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = _COLORS.get(record.levelno)
        return f"{color}{text}\033[0m" if color else text


def set_up(
    level: str,
    style: str,
    handlers: list[str],
    stream: TextIO | None = None,
    network_level: str = "warning",
    *,
    as_json: bool = False,
) -> None:
    """Send the package's log to `handlers` (`console`, `file=PATH`, `syslog[=ADDRESS]`, `http=HOST/PATH`).

    Replaces earlier ones. `style` is plain, color, syslog or legacy; colors are used on a terminal only. With `as_json`
    lines are JSON objects, regardless of the style. Raises ValueError for an unknown handler.
    """
    root = logging.getLogger(ROOT)
    root.setLevel(LEVELS[level])
    root.propagate = False
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    for spec in handlers:
        handler = _handler(spec, stream or sys.stderr)
        console = isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
        colored = style == "color" and console and (stream or sys.stderr).isatty()
        text = (_ColorFormatter if colored else _TextFormatter)(_FORMATS[style])
        handler.setFormatter(_JsonFormatter() if as_json else text)
        handler.addFilter(Fields())
        root.addHandler(handler)
    for name in ("httpx", "urllib3", "huggingface_hub", "engineio", "socketio"):
        logging.getLogger(name).setLevel(LEVELS[network_level])


def _handler(spec: str, stream: TextIO) -> logging.Handler:
    kind, _, argument = spec.partition("=")
    match kind:
        case "console":
            return logging.StreamHandler(stream)
        case "file" if argument:
            return logging.FileHandler(argument, encoding="utf-8")
        case "syslog":
            return logging.handlers.SysLogHandler(address=argument or "/dev/log")
        case "http" if argument:
            host, _, path = argument.removeprefix("http://").partition("/")
            return logging.handlers.HTTPHandler(host, f"/{path}", method="POST")
        case _:
            raise ValueError(
                f"unknown log handler {spec!r}: use console, file=PATH, syslog or syslog=ADDRESS, http=HOST/PATH"
            )
