"""Clients of the preset routes: one of single-user mode, and one for each account."""

from collections.abc import AsyncIterator

import httpx
import pytest

from invokeclone.kit.resources import Resources
from invokeclone.presets import prompts, service
from invokeclone.presets.api import router
from tests.applications import serving
from tests.images.people import asking, multiuser


@pytest.fixture
async def begun(resources: Resources) -> Resources:
    """Put in what comes with the application, as a start does."""
    await service.start(resources)
    await prompts.start(resources)
    return resources


@pytest.fixture
async def client(begun: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(begun, router) as served:
        yield served


@pytest.fixture
async def people(begun: Resources) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    async with asking(multiuser(begun), router) as clients:
        yield clients
