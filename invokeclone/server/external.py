"""Routes of external image providers: status, API keys and base URLs. Keys are write-only."""

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
ProviderId = Annotated[str, Path(description="Id of the provider.")]


class UnknownProvider(NotFound):
    """The provider does not exist."""


class EmptyUpdate(BadRequest):
    """Neither a key nor a base URL was given."""


def _printable(text: str | None) -> str | None:
    text = text.strip() if text else text
    if text and not text.isprintable():
        raise ValueError("contains non-printable characters")
    return text


def _address(text: str | None) -> str | None:
    if text:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http or https URL")
    return text


class ExternalProviderStatusModel(BaseModel):
    """Whether a provider can be used."""

    provider_id: str = Field(description="Id of the provider.")
    configured: bool = Field(description="Whether a key is set.")
    message: str | None = Field(default=None, description="Why the provider cannot be used, if known.")


class ExternalProviderConfigModel(BaseModel):
    """Configuration of a provider, without its key."""

    provider_id: str = Field(description="Id of the provider.")
    api_key_configured: bool = Field(description="Whether a key is set.")
    base_url: str | None = Field(default=None, description="URL used instead of the provider's default.")


class ExternalProviderConfigUpdate(BaseModel):
    """Changes to a provider's configuration: absent fields stay as they are, an empty string clears a value."""

    api_key: Annotated[str | None, AfterValidator(_printable)] = Field(default=None, description="The API key.")
    base_url: Annotated[str | None, AfterValidator(_printable), AfterValidator(_address)] = Field(
        default=None, description="URL used instead of the provider's default."
    )


@router.get("/status", operation_id="get_external_provider_statuses")
async def get_external_provider_statuses(needs: Needs, _user: CurrentUser) -> list[ExternalProviderStatusModel]:
    """Return for each provider whether a key is set."""
    return [
        ExternalProviderStatusModel(provider_id=name, configured=_has_key(needs.settings, name)) for name in PROVIDERS
    ]


@router.get("/config", operation_id="get_external_provider_configs")
async def get_external_provider_configs(needs: Needs, _user: Admin) -> list[ExternalProviderConfigModel]:
    """Return the configuration of each provider, without keys."""
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
    """Set a provider's key or base URL, persistently; clearing the key deletes the provider's models."""
    return await _change(needs, guard, workers, provider_id, changes.model_dump(exclude_none=True))


@router.delete("/config/{provider_id}", operation_id="reset_external_provider_config")
async def reset_external_provider_config(
    provider_id: ProviderId, needs: Needs, guard: NeedsGuard, workers: NeedsSupervisor, _user: Admin
) -> ExternalProviderConfigModel:
    """Clear a provider's key and base URL, and delete its models."""
    return await _change(needs, guard, workers, provider_id, {"api_key": "", "base_url": ""})


async def _change(
    resources: Resources, guard: Guard, workers: Supervisor, provider: str, new_values: dict[str, str]
) -> ExternalProviderConfigModel:
    if provider not in PROVIDERS:
        raise UnknownProvider(f"unknown provider {provider!r}; known providers: {', '.join(PROVIDERS)}")
    if not new_values:
        raise EmptyUpdate("give api_key or base_url")
    values = {f"external_{provider}_{name}": text or None for name, text in new_values.items()}
    settings = await in_thread(live_config.change_keys, resources, values)
    workers.change_settings(settings)
    if new_values.get("api_key") == "":
        await _delete_models(resources, guard, provider)
    return _config(settings, provider)


async def _delete_models(resources: Resources, guard: Guard, provider: str) -> None:
    """Delete the provider's model records, which cannot run without a key; records in use stay."""
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
