"""Routes about image services elsewhere: which are known, whether a key is set, and setting one. A key never comes back out."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Path
from pydantic import AfterValidator, BaseModel, Field

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import BadRequest, NotFound
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.requests import Needs
from invokeclone.kit.resources import Resources
from invokeclone.models.api import NeedsGuard
from invokeclone.models.configs.external import PROVIDERS
from invokeclone.models.records import changes, store
from invokeclone.models.records.guard import Guard
from invokeclone.server import live_config
from invokeclone.server.info import NeedsSupervisor
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.users.current import Admin, CurrentUser

router = APIRouter(prefix="/api/v1/app/external_providers", tags=["app"])
ProviderId = Annotated[str, Path(description="The service.")]


class UnknownProvider(NotFound):
    """No such service is known."""


class EmptyUpdate(BadRequest):
    """Neither a key nor an address was given."""


def _printable(text: str | None) -> str | None:
    text = text.strip() if text else text
    if text and not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def _address(text: str | None) -> str | None:
    if text:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http or https address")
    return text


class ExternalProviderStatusModel(BaseModel):
    """Whether a service can be used."""

    provider_id: str = Field(description="The service.")
    configured: bool = Field(description="Whether a key is set.")
    message: str | None = Field(default=None, description="What stands in the way, if anything is known to.")


class ExternalProviderConfigModel(BaseModel):
    """What is set for a service, without its key."""

    provider_id: str = Field(description="The service.")
    api_key_configured: bool = Field(description="Whether a key is set.")
    base_url: str | None = Field(default=None, description="Address in place of the service's own.")


class ExternalProviderConfigUpdate(BaseModel):
    """What to set for a service; what is absent stays, an empty text takes a value out."""

    api_key: Annotated[str | None, AfterValidator(_printable)] = Field(default=None, description="The key.")
    base_url: Annotated[str | None, AfterValidator(_printable), AfterValidator(_address)] = Field(
        default=None, description="Address in place of the service's own."
    )


@router.get("/status", operation_id="get_external_provider_statuses")
async def get_external_provider_statuses(needs: Needs, _user: CurrentUser) -> list[ExternalProviderStatusModel]:
    """Tell for which services a key is set."""
    return [
        ExternalProviderStatusModel(provider_id=name, configured=_has_key(needs.settings, name)) for name in PROVIDERS
    ]


@router.get("/config", operation_id="get_external_provider_configs")
async def get_external_provider_configs(needs: Needs, _user: Admin) -> list[ExternalProviderConfigModel]:
    """Tell what is set for each service; keys are not told."""
    return [_config(needs.settings, name) for name in PROVIDERS]


@router.post("/config/{provider_id}", operation_id="set_external_provider_config")
async def set_external_provider_config(
    provider_id: ProviderId,
    changes: ExternalProviderConfigUpdate,
    needs: Needs,
    guard: NeedsGuard,
    workers: NeedsSupervisor,
    _user: Admin,
) -> ExternalProviderConfigModel:
    """Set a service's key or address, now and for later starts; taking its key out deletes its models."""
    return await _change(needs, guard, workers, provider_id, changes.model_dump(exclude_none=True))


@router.delete("/config/{provider_id}", operation_id="reset_external_provider_config")
async def reset_external_provider_config(
    provider_id: ProviderId, needs: Needs, guard: NeedsGuard, workers: NeedsSupervisor, _user: Admin
) -> ExternalProviderConfigModel:
    """Forget a service's key and address, and delete its models."""
    return await _change(needs, guard, workers, provider_id, {"api_key": "", "base_url": ""})


async def _change(
    resources: Resources, guard: Guard, workers: Supervisor, provider: str, new_values: dict[str, str]
) -> ExternalProviderConfigModel:
    if provider not in PROVIDERS:
        raise UnknownProvider(f"no service is called {provider!r}; there are {', '.join(PROVIDERS)}")
    if not new_values:
        raise EmptyUpdate("give api_key or base_url")
    values = {f"external_{provider}_{name}": text or None for name, text in new_values.items()}
    settings = await in_thread(live_config.change_keys, resources, values)
    workers.change_settings(settings)
    if new_values.get("api_key") == "":
        await _delete_models(resources, guard, provider)
    return _config(settings, provider)


async def _delete_models(resources: Resources, guard: Guard, provider: str) -> None:
    """Delete the records that nothing can run any more; one that is busy stays."""
    async with resources.database.read() as connection:
        model_keys = await store.keys_by_source(connection, f"external://{provider}/")
    await changes.for_each(model_keys, lambda key: changes.remove(resources, guard, key))


def _has_key(settings: Settings, provider: str) -> bool:
    return bool(getattr(settings, f"external_{provider}_api_key"))


def _config(settings: Settings, provider: str) -> ExternalProviderConfigModel:
    return ExternalProviderConfigModel(
        provider_id=provider,
        api_key_configured=_has_key(settings, provider),
        base_url=getattr(settings, f"external_{provider}_base_url"),
    )
