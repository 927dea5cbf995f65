"""Routes about the application: version, dependencies, settings, log level, devices, invocation cache.

The cache's state lives in the workers, so those routes query them.
"""

import enum
import importlib.metadata
import logging
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, Field

from invokeclone.graph.invocations import registry
from invokeclone.kit import log
from invokeclone.kit.config.settings import InvokeAIAppConfig, Settings
from invokeclone.kit.errors import Unprocessable
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.requests import Needs, service
from invokeclone.kit.resources import Resources
from invokeclone.kit.workers import parse_replies
from invokeclone.server import live_config
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.users.current import Admin, CurrentUser
from invokeclone.version import API_VERSION

MASK = "*" * 10
ESRGAN_MODELS = [
    "RealESRGAN_x4plus.pth",
    "RealESRGAN_x4plus_anime_6B.pth",
    "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
    "RealESRGAN_x2plus.pth",
]
INFILL_NODES = {
    "infill_patchmatch": "patchmatch",
    "infill_lama": "lama",
    "infill_tile": "tile",
    "infill_cv2": "cv2",
    "infill_rgba": "color",
}

router = APIRouter(prefix="/api/v1/app", tags=["app"])


def _without_default(schema: dict[str, Any]) -> None:
    """Omit a field's default from the schema: an absent value means no change."""
    schema.pop("default", None)


class AppVersion(BaseModel):
    """The version of the API."""

    version: str = Field(description="InvokeAI version that the API is compatible with.")
    highlights: list[str] | None = Field(default=None, description="New features of the version.")


class InvokeAIAppConfigWithSetFields(BaseModel):
    """All settings, and the names of those that were set explicitly."""

    set_fields: set[str] = Field(description="Names of the settings that were set explicitly.")
    config: InvokeAIAppConfig = Field(description="All settings; secrets are masked.")


class UpdateAppGenerationSettingsRequest(BaseModel):
    """Settings that can be changed at runtime; absent fields stay as they are."""

    image_subfolder_strategy: Literal["flat", "date", "type", "hash"] = Field(
        default="flat",
        description="How new images are distributed over subfolders.",
        json_schema_extra=_without_default,
    )
    max_queue_history: int | None = Field(
        default=None, ge=0, description="Finished items to keep at server start.", json_schema_extra=_without_default
    )
    generation_devices: Any = Field(
        default=None, description="`auto` or a list of device names.", json_schema_extra=_without_default
    )


class GenerationDeviceOption(BaseModel):
    """A device that can run the queue."""

    device: str
    name: str


class InvocationCacheStatus(BaseModel):
    """Size and hit rate of the invocation caches."""

    size: int = Field(description="Number of cached outputs.")
    hits: int = Field(description="Number of cache hits.")
    misses: int = Field(description="Number of cache misses.")
    enabled: bool = Field(description="Whether the cache is enabled.")
    max_size: int = Field(description="Maximum number of cached outputs.")


class LogLevel(int, enum.Enum):
    """Minimum level that is logged."""

    NOT_SET = 0
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


class Upscaler(BaseModel):
    """An upscaling method and its models."""

    upscaling_method: str
    upscaling_models: list[str]


class AppConfig(BaseModel):
    """Optional features of the server, read by clients of version 6.8."""

    infill_methods: list[str]
    upscaling_methods: list[Upscaler]
    nsfw_methods: list[str]
    watermarking_methods: list[str]


NeedsSupervisor = Annotated[Supervisor, Depends(service(Supervisor))]


@router.get("/version", operation_id="app_version")
async def version() -> AppVersion:
    """Return the InvokeAI version that the API is compatible with."""
    return AppVersion(version=API_VERSION)


@router.get("/app_deps", operation_id="get_app_deps")
async def dependencies(_user: CurrentUser) -> dict[str, str]:
    """Return the installed packages with their versions, and the CUDA version or N/A."""
    return await in_thread(_dependencies)


@router.get("/config", operation_id="get_config")
async def config(needs: Needs, _user: CurrentUser) -> AppConfig:
    """Return the optional features that the available nodes provide."""
    nodes = registry.nodes_in_use()
    infills = [name for node, name in INFILL_NODES.items() if node in nodes]
    return AppConfig(
        infill_methods=[name for name in infills if name != "patchmatch" or needs.settings.patchmatch],
        upscaling_methods=[Upscaler(upscaling_method="esrgan", upscaling_models=ESRGAN_MODELS)]
        if "esrgan" in nodes
        else [],
        nsfw_methods=["nsfw_checker"] if "img_nsfw" in nodes else [],
        watermarking_methods=["invisible_watermark"] if "img_watermark" in nodes else [],
    )


@router.get("/patchmatch_status", operation_id="get_patchmatch_status")
async def patchmatch_status(needs: Needs, _user: CurrentUser) -> bool:
    """Return whether PatchMatch infill is available, which the official UI 6.8.1 then uses by default."""
    return needs.settings.patchmatch and "infill_patchmatch" in registry.nodes_in_use()


@router.get("/runtime_config", operation_id="get_runtime_config")
async def runtime_config(needs: Needs, _admin: Admin) -> InvokeAIAppConfigWithSetFields:
    """Return all settings, with secrets masked."""
    return _config_response(needs.settings)


@router.patch("/runtime_config", operation_id="update_runtime_config")
async def update_runtime_config(
    changes: UpdateAppGenerationSettingsRequest, needs: Needs, workers: NeedsSupervisor, _admin: Admin
) -> InvokeAIAppConfigWithSetFields:
    """Change settings at runtime and in the settings file; devices and history take effect at the next start."""
    settings = await in_thread(_change, needs, changes, {option["device"] for option in workers.devices()})
    workers.change_settings(settings)
    return _config_response(settings)


@router.get("/generation_device_options", operation_id="get_generation_device_options")
async def generation_device_options(workers: NeedsSupervisor, _user: CurrentUser) -> list[GenerationDeviceOption]:
    """Return the devices that can run the queue: those of the OS until a worker reports the ones it found."""
    return [GenerationDeviceOption(device=option["device"], name=option["name"]) for option in workers.devices()]


@router.get("/logging", operation_id="get_log_level")
async def log_level(_admin: Admin) -> LogLevel:
    """Return the minimum level that is logged."""
    return LogLevel(logging.getLogger(log.ROOT).level)


@router.post("/logging", operation_id="set_log_level")
async def set_log_level(
    workers: NeedsSupervisor, _admin: Admin, level: Annotated[LogLevel, Body(description="New level.")]
) -> LogLevel:
    """Set the minimum log level of the server and its workers until the server stops."""
    logging.getLogger(log.ROOT).setLevel(level)
    await workers.ask_all("set_log_level", {"level": int(level)})
    return level


@router.get("/invocation_cache/status", operation_id="get_invocation_cache_status")
async def invocation_cache_status(needs: Needs, workers: NeedsSupervisor, _admin: Admin) -> InvocationCacheStatus:
    """Return the combined state of the workers' invocation caches."""
    statuses = parse_replies(InvocationCacheStatus, await workers.ask_all("cache_status"))
    size = needs.settings.node_cache_size
    return InvocationCacheStatus(
        size=sum(status.size for status in statuses),
        hits=sum(status.hits for status in statuses),
        misses=sum(status.misses for status in statuses),
        enabled=any(status.enabled for status in statuses) if statuses else size > 0,
        max_size=max((status.max_size for status in statuses), default=size),
    )


@router.delete("/invocation_cache", operation_id="clear_invocation_cache")
async def clear_invocation_cache(workers: NeedsSupervisor, _admin: Admin) -> None:
    """Clear the workers' invocation caches."""
    await workers.ask_all("clear_invocation_cache")


@router.put("/invocation_cache/enable", operation_id="enable_invocation_cache")
async def enable_invocation_cache(workers: NeedsSupervisor, _admin: Admin) -> None:
    """Enable the workers' invocation caches."""
    await workers.ask_all("enable_invocation_cache")


@router.put("/invocation_cache/disable", operation_id="disable_invocation_cache")
async def disable_invocation_cache(workers: NeedsSupervisor, _admin: Admin) -> None:
    """Disable the workers' invocation caches."""
    await workers.ask_all("disable_invocation_cache")


def _dependencies() -> dict[str, str]:
    """Return package versions by name; the CUDA version is taken from PyTorch's build tag."""
    versions = {str(package.name): package.version for package in importlib.metadata.distributions() if package.name}
    build = versions.get("torch", "").partition("+cu")[2]
    versions["CUDA"] = f"{build[:-1]}.{build[-1]}" if build.isdigit() else "N/A"
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))


def _config_response(settings: Settings) -> InvokeAIAppConfigWithSetFields:
    secrets: dict[str, Any] = {
        name: MASK for name in InvokeAIAppConfig.model_fields if name.endswith("_api_key") and getattr(settings, name)
    }
    if settings.remote_api_tokens:
        secrets["remote_api_tokens"] = [pair.model_copy(update={"token": MASK}) for pair in settings.remote_api_tokens]
    masked = settings.model_copy(update=secrets)
    excluded = {name for name, field in InvokeAIAppConfig.model_fields.items() if field.exclude}
    return InvokeAIAppConfigWithSetFields(set_fields=settings.model_fields_set - excluded, config=masked)


def _change(resources: Resources, changes: UpdateAppGenerationSettingsRequest, devices: set[str]) -> Settings:
    """Change settings at runtime and in the file, and return all. Raises Unprocessable for an unknown device."""
    new_values = {name: getattr(changes, name) for name in changes.model_fields_set}
    if "generation_devices" in new_values:
        requested_devices = new_values["generation_devices"]
        if isinstance(requested_devices, list) and not all(isinstance(name, str) for name in requested_devices):
            raise Unprocessable("generation_devices must be `auto` or a list of device names")
        unknown = (
            [name for name in requested_devices if name not in devices] if isinstance(requested_devices, list) else []
        )
        if unknown:
            raise Unprocessable(f"unknown device {unknown[0]}; available devices: {', '.join(sorted(devices))}")
    return live_config.change(resources, new_values)
