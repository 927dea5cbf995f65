"""Clients of the library: one of single-user mode, and one for each account."""

from collections.abc import AsyncIterator

import httpx
import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.resources import Resources
from invokeclone.workflows.api import router
from tests.applications import serving
from tests.images.people import asking, multiuser


@pytest.fixture(autouse=True, scope="session")
def nodes() -> None:
    """Have the node vocabulary to judge by."""
    registry.discover()


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, router) as served:
        yield served


@pytest.fixture
async def people(resources: Resources) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    async with asking(multiuser(resources), router) as clients:
        yield clients
