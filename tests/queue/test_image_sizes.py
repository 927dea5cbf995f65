"""Sizes of initial images, masks and results agree, or the request is refused, before anything is enqueued."""

import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from invokeclone.graph.invocations import registry
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import service
from invokeclone.kit.resources import Resources
from tests.queue.test_generation import add


@pytest.fixture(scope="module", autouse=True)
def nodes() -> None:
    registry.discover()


async def store(resources: Resources, size: tuple[int, int], orientation: int = 1) -> str:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "JPEG", exif=exif)
    record = await service.upload(
        resources, file.getvalue(), content_type="image/jpeg", category=ImageCategory.USER, is_intermediate=False
    )
    return record.image_name


async def enqueue(client: httpx.AsyncClient, status: int = 200, **fields: Any) -> dict[str, dict[str, Any]]:
    """Return the nodes of the enqueued graph, or the problem of a refused request, which must enqueue nothing."""
    response = await client.post("enqueue_prompt", json={"prompt": "x", **fields})
    assert response.status_code == status, response.text
    items = (await client.get("list_all")).json()
    if status != 200:
        assert items == []
        return {"detail": response.json()["detail"]}
    return dict(items[-1]["session"]["graph"]["nodes"])


async def test_the_result_has_the_size_of_the_initial_image(client: httpx.AsyncClient, resources: Resources) -> None:
    await add(resources.database, "m")
    for stored, orientation, expected in (
        ((304, 200), 1, (304, 200)),
        ((300, 200), 1, (304, 200)),
        ((300, 200), 6, (200, 304)),
        ((4000, 2000), 1, (1448, 728)),
        ((9, 9), 1, (64, 64)),
    ):
        name = await store(resources, stored, orientation)
        graph = await enqueue(client, init_image={"image": name})
        assert (graph["core_metadata"]["width"], graph["core_metadata"]["height"]) == expected, stored
        if stored == expected:
            assert "resize" not in graph
        else:
            assert (graph["resize"]["width"], graph["resize"]["height"]) == expected


async def test_an_initial_image_and_its_mask_are_resized(client: httpx.AsyncClient, resources: Resources) -> None:
    await add(resources.database, "m")
    image, mask = await store(resources, (300, 200)), await store(resources, (300, 200))
    graph = await enqueue(client, init_image={"image": image}, inpaint_mask={"mask": mask}, width=128, height=256)
    for name, source in (("resize", image), ("resize_mask", mask)):
        assert (graph[name]["width"], graph[name]["height"]) == (128, 256)
        assert graph[name]["image"]["image_name"] == source


async def test_a_mask_of_another_size_is_refused(client: httpx.AsyncClient, resources: Resources) -> None:
    await add(resources.database, "m")
    image, mask = await store(resources, (300, 200)), await store(resources, (200, 300))
    refused = await enqueue(client, 400, init_image={"image": image}, inpaint_mask={"mask": mask})
    assert "the mask is 200x300 and the initial image 300x200" in json.dumps(refused)
    fitting = await store(resources, (64, 96))
    await enqueue(client, init_image={"image": image}, inpaint_mask={"mask": fitting}, width=64, height=96)
    turned = await store(resources, (200, 300), 8)
    await enqueue(client, init_image={"image": image}, inpaint_mask={"mask": turned})


async def test_unknown_images_are_refused(client: httpx.AsyncClient, resources: Resources) -> None:
    await add(resources.database, "m")
    image = await store(resources, (64, 64))
    await enqueue(client, 404, init_image={"image": "none.png"})
    await enqueue(client, 404, init_image={"image": image}, inpaint_mask={"mask": "none.png"})
    await enqueue(client, 404, controls=[{"model": "c", "image": "none.png"}])
    await enqueue(client, 404, reference_images=[{"image": "none.png"}])
