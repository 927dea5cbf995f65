"""Further images of OpenAI's and Gemini's requests: reference images where the model has an adapter, else a warning."""

import pytest
from PIL import Image
from starlette.requests import Request

from invokeclone.graph.invocations import registry
from invokeclone.kit.resources import Resources
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.queue.generation import GenerationRequest, ResolvedRequest
from invokeclone.shims.compat_api import RequestRejected, Warnings
from invokeclone.shims.references import with_reference_images
from invokeclone.users.current import SYSTEM
from tests.shims.test_automatic1111_adapters import library as library
from tests.shims.test_automatic1111_controlnet import size_of

IMAGES = [Image.new("RGBA", (8 * count, 8), "red") for count in range(1, 21)]


def warnings(preference: str = "") -> Warnings:
    return Warnings(Request({"type": "http", "headers": [(b"prefer", preference.encode())]}))


async def apply(resources: Resources, count: int, noted: Warnings) -> ResolvedRequest:
    async with resources.database.read() as connection:
        resolved = await generation.resolve(connection, GenerationRequest(prompt="a", model="m"))
    return await with_reference_images(resources, SYSTEM, resolved, IMAGES[:count], noted, "image")


async def test_further_images_become_reference_images(library: Resources) -> None:
    noted = warnings()
    resolved = await apply(library, 2, noted)
    first, second = resolved.settings.references
    assert (first.model["name"], second.model["name"]) == ("ip-adapter_sd15",) * 2
    assert [await size_of(library, reference.image) for reference in (first, second)] == [(8, 8), (16, 8)]
    assert noted.texts == []
    assert noted.headers == {}
    registry.discover()
    assert resolved.batch(origin="t").requested == 1


async def test_images_over_the_limit_of_the_model_are_left_out(library: Resources) -> None:
    async with library.database.read() as connection:
        limit = generation.architecture_of(await generation.find_model(connection, "m")).capabilities.reference_images
    noted = warnings()
    resolved = await apply(library, limit + 1, noted)
    assert len(resolved.settings.references) == limit
    assert noted.texts == [f"only the first image is edited and {limit} are references, 1 of {limit + 2} images is not used: m takes {limit} reference images"]  # fmt: skip


async def test_without_an_adapter_they_are_left_out_or_refused(library: Resources) -> None:
    async with library.database.write() as connection:
        await models.delete(connection, "ip-adapter_sd15")
    noted = warnings("handling=lenient")
    resolved = await apply(library, 1, noted)
    assert resolved.settings.references == []
    assert noted.headers["Warning"].startswith('299 - "only the first image is edited, 1 of 2 images is not used')
    for preference in ("handling=strict", "respond-async; handling = Strict", "wait=5, handling=strict"):
        with pytest.raises(RequestRejected, match="no IP-Adapter for sd-1") as error:
            await apply(library, 1, warnings(preference))
        assert error.value.param == "image"


def test_warnings_cannot_break_out_of_their_header() -> None:
    noted = warnings()
    noted.add('a "b" c\\d\r\nSet-Cookie: x=1 é\x7f', "image")
    noted.add("x" * 5000, "image")
    header = noted.headers["Warning"]
    assert header.startswith('299 - "a \'b\' c?d??Set-Cookie: x=1 ??", 299 - "xxx')
    assert header.count('"') == 4
    assert len(header) < 2500
    assert noted.texts[0].startswith('a "b"')
