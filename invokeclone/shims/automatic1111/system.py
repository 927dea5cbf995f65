"""Memory and settings of the server in A1111's form."""

from typing import Any

import psutil
from pydantic import BaseModel

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.workers import Workers, parse_replies

MEMORY_TIMEOUT_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _MemoryReply(BaseModel):
    """The memory of a worker's device, in bytes."""

    kind: str
    free: int
    total: int
    used: int


async def describe_memory(workers: Workers) -> dict[str, Any]:
    """Return the machine's memory and that of the first worker's GPU, in bytes; `cuda` says why there is none."""
    memory = psutil.virtual_memory()
    used = psutil.Process().memory_info().rss
    return {"ram": {"free": memory.available, "used": used, "total": memory.total}, "cuda": await _gpu_memory(workers)}


async def _gpu_memory(workers: Workers) -> dict[str, Any]:
    try:
        devices = await workers.ask_all("device_memory", seconds=MEMORY_TIMEOUT_S)
    except InvokeCloneError as error:
        return {"error": str(error)}
    gpu = next((device for device in parse_replies(_MemoryReply, devices) if device.kind != "cpu"), None)
    if gpu is None:
        return {"error": "no worker with a GPU is ready"}
    system = {"free": gpu.free, "used": gpu.total - gpu.free, "total": gpu.total}
    return {"system": system, "allocated": {"current": gpu.used}}


def describe_flags(settings: Settings) -> dict[str, Any]:
    """Return the settings that A1111 has as flags, under their names there."""
    return {
        "api": True,
        "listen": settings.host not in LOOPBACK,
        "port": settings.port,
        "server_name": settings.host,
        "subpath": settings.base_url or None,
        "use_cpu": ["all"] if settings.device == "cpu" else [],
        "no_half": settings.precision == "float32",
        "cors_allow_origins": ",".join(settings.allow_origins) or None,
        "share": False,
        "nowebui": False,
    }
