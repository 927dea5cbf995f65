"""The messages between a server and the agents of joined workers: JSON objects in text frames.

The agent sends `join`, then what its worker process writes. The server answers `hello` or `refused`, and sends what it
sends to its own worker processes. Both send a message that exceeds a frame as `part`s and an `end`, so that a slow
connection is not taken for a cut one; whole messages may come between the parts.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from invokeclone.kit.config.settings import DEVICE, Settings
from invokeclone.queue.bulk import JOINED
from invokeclone.version import __version__

PROTOCOL = 2
"""Number of this protocol; increase it with each change that another version would not understand."""
PATH = "/api/v1/workers/join"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ALIVE_S = 3.0
"""Seconds between messages of an agent that show that it and its worker process are alive."""
SILENCE_S = 15.0
"""Seconds without a message after which either side closes the connection."""
MESSAGE_LIMIT = 64 * 1024 * 1024
"""Maximum bytes of a message. Those of calls, results and events are limited where they are made, to less."""
FRAME_LIMIT = 256 * 1024
"""Maximum bytes of a frame; the server's setting `limits.socket_message_kib` may be less."""
REFUSED = 4400
"""Close code of a connection that the server refused for good; `refused` has the reason."""

MAX_REASON = 500
"""Maximum characters of a reason that an agent states."""

SHARED_SETTINGS = (
    "metrics", "log_memory_usage", "log_tokenization", "image_subfolder_strategy", "pil_compress_level",
    "model_cache_keep_alive_min", "precision", "sequential_guidance", "first_block_cache_threshold",
    "pyramid_attention_broadcast", "guidance_end", "torch_compile", "tiny_autoencoder_previews",
    "wan_memory_optimization", "pid_memory_optimization", "attention_type", "attention_slice_size",
    "force_tiled_decode", "max_queue_size", "session_queue_mode", "cancel_grace_s", "allow_nodes", "deny_nodes",
    "node_cache_size", "hashing_algorithm", "allow_unknown_models", "unsafe_disable_picklescan",
    "allow_private_download_urls", "multiuser", "limits",
)  # fmt: skip
"""Settings that a joined worker takes from the server. Paths, secrets, devices and memory are its own machine's."""


def clean_name(text: str) -> str:
    """Return the name of a machine made of `text`."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).strip("-._")[:63] or "worker"


def select_shared_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return of all settings as JSON those that a joined worker takes from the server."""
    return {name: values[name] for name in SHARED_SETTINGS if name in values}


def merge_settings(machine: Settings, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a joined worker as JSON: those of its machine and the server's."""
    return machine.to_worker() | select_shared_settings(shared)


def one_line(value: object) -> str:
    """Return a text that an agent sent as one line of limited length."""
    return " ".join(value[: 2 * MAX_REASON].split())[:MAX_REASON] if isinstance(value, str) else "unknown"


def explain(error: Exception) -> str:
    """Return as one line why a value is not valid, without the value."""
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        return one_line(f"{problem['loc']}: {problem['msg']}")
    return type(error).__name__


class EndedWorker(BaseModel):
    """A worker process of the agent that has ended, and why; `stopped` if it was asked to."""

    worker_id: str = Field(max_length=200)
    reason: Annotated[str, AfterValidator(one_line)]
    stopped: bool = False


class Join(BaseModel):
    """The first message of an agent."""

    model_config = ConfigDict(extra="ignore")

    protocol: int
    version: str = Field(max_length=50)
    name: str = Field(pattern=rf"^{NAME.pattern}$")
    device: str = Field(pattern=DEVICE.pattern)
    worker_id: str = Field(max_length=200)
    pid: int = Field(ge=0)
    received: int = Field(default=0, ge=0)
    """Number of messages that the worker process has got from earlier connections."""
    ended: list[EndedWorker] = Field(default=[], max_length=10)
    """Earlier worker processes of the agent."""

    @field_validator("worker_id")
    @classmethod
    def _is_joined(cls, value: str) -> str:
        if not value.startswith(JOINED):
            raise ValueError(f"does not begin with {JOINED}")
        return value


def find_difference(protocol: int, version: str) -> str | None:
    """Return why a worker cannot join because of its version, None if it can."""
    if protocol == PROTOCOL and version == __version__:
        return None
    return (
        f"the worker runs invokeclone {one_line(version)} (protocol {protocol}) and the server {__version__} (protocol {PROTOCOL}); "
        "install the same version on both machines"
    )


def frames_of(line: bytes, max_frame: int) -> Iterator[str]:
    """Yield a message, a JSON text, in frames of at most `max_frame` bytes."""
    text = line.decode()
    if len(line) <= max_frame:
        yield text
        return
    size = max(max_frame // 8 - 64, 1)  # a character has up to 4 bytes, and two of those that JSON escapes
    for start in range(0, len(text), size):
        kind = "part" if start + size < len(text) else "end"
        yield orjson.dumps({"kind": kind, "data": text[start : start + size]}).decode()


class InvalidMessage(ValueError):
    """A frame is not part of a message."""


class MessageTooLong(InvalidMessage):
    """A message exceeds MESSAGE_LIMIT."""


class Assembler:
    """Assembles messages from frames."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self.size = 0
        """Bytes of the latest message."""

    def add(self, frame: str | bytes) -> dict[str, Any] | None:
        """Return the message that a frame completes, None if more frames belong to it.

        Raises InvalidMessage, and orjson's JSONDecodeError, which are ValueErrors.
        """
        message = _parse(frame)
        self.size = len(frame)
        kind = message.get("kind")
        if kind not in ("part", "end"):
            return message
        data = message.get("data")
        if not isinstance(data, str):
            raise InvalidMessage("a part has no text")
        self._parts += data.encode()
        if len(self._parts) > MESSAGE_LIMIT:
            raise MessageTooLong(f"a message has more than {MESSAGE_LIMIT // 1024**2} MiB")
        if kind == "part":
            return None
        parts, self._parts = self._parts, bytearray()
        self.size = len(parts)
        return _parse(parts)


def _parse(text: str | bytes | bytearray) -> dict[str, Any]:
    message = orjson.loads(text)
    if not isinstance(message, dict):
        raise InvalidMessage("a frame is not a JSON object")
    return message
