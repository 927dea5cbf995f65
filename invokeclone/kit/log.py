"""Logging: one place that sets handlers and formats; rooms only ask for a logger by name."""

import logging
import logging.handlers
import sys
from typing import TextIO

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


def get(name: str) -> logging.Logger:
    """Return the logger of one room: `get("queue")` is `invokeclone.queue`."""
    return logging.getLogger(f"{ROOT}.{name}")


class _ColorFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = _COLORS.get(record.levelno)
        return f"{color}{text}\033[0m" if color else text


def set_up(
    level: str, style: str, handlers: list[str], stream: TextIO | None = None, network_level: str = "warning"
) -> None:
    """Send the package's log to `handlers` (`console`, `file=PATH`, `syslog[=ADDRESS]`, `http=HOST/PATH`), replacing earlier ones.

    `style` is plain, color, syslog or legacy; colours only go to a terminal. Raises ValueError for an unknown handler.
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
        handler.setFormatter((_ColorFormatter if colored else logging.Formatter)(_FORMATS[style]))
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
