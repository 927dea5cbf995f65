"""Uploads: what is taken, what is refused and in which order, and what is kept of a picture."""

import io
import json
import struct
import zlib

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from invokeclone.images.encoding import png
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.files.image_modes import ORIENTATION
from invokeclone.kit.resources import Resources
from tests.applications import decode_image, encode_image, sample_image

WORKFLOW = {
    "name": "w", "author": "", "description": "", "version": "", "contact": "", "tags": "", "notes": "",
    "exposedFields": [{"nodeId": "a", "fieldName": "b"}], "meta": {"version": "3.0.0", "category": "user"},
    "nodes": [], "edges": [], "form": None,
}  # fmt: skip
GRAPH = {"id": "g", "nodes": {}, "edges": []}


def files_in(resources: Resources) -> list[str]:
    folder = resources.settings.outputs_path
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_upload_returns_the_full_image(client: httpx.AsyncClient, resources: Resources) -> None:
    answer = await client.post(
        "/api/v1/images/upload",
        params={"image_category": "user", "is_intermediate": "true", "session_id": "s"},
        files={"file": ("x.png", encode_image(sample_image()), "image/png")},
    )
    image = answer.json()
    name = image["image_name"]
    assert answer.status_code == 201
    assert answer.headers["location"] == image["image_url"] == f"api/v1/images/i/{name}/full"
    assert len(image.pop("created_at")) == len("2026-11-21 02:15:55.885")
    assert image == {
        "image_name": name,
        "image_url": f"api/v1/images/i/{name}/full",
        "thumbnail_url": f"api/v1/images/i/{name}/thumbnail",
        "image_origin": "external",
        "image_category": "user",
        "width": 48,
        "height": 32,
        "updated_at": image["updated_at"],
        "deleted_at": None,
        "is_intermediate": True,
        "session_id": "s",
        "node_id": None,
        "starred": False,
        "has_workflow": False,
        "image_subfolder": "",
        "board_id": None,
    }
    assert files_in(resources) == [f"images/{name}", f"images/thumbnails/{name[:-4]}.webp"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
async def test_png_pixels_are_unchanged(upload, client: httpx.AsyncClient, mode: str) -> None:
    sent = sample_image(mode)
    image = await upload(encode_image(sent))
    stored = decode_image((await client.get(image["image_url"])).content)
    assert stored.mode == mode
    assert stored.convert("RGBA").tobytes() == sent.convert("RGBA").tobytes()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("L", "GIF"), ("RGB", "BMP"), ("F", "TIFF")],
)
async def test_other_formats_are_converted_to_png(upload, client: httpx.AsyncClient, mode: str, kind: str) -> None:
    image = await upload(encode_image(sample_image(mode), kind), content_type=f"image/{kind.lower()}")
    stored = decode_image((await client.get(image["image_url"])).content)
    assert (stored.format, stored.size) == ("PNG", (48, 32))


async def test_exif_rotation_is_not_applied(upload) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = await upload(encode_image(sample_image(), "JPEG", exif=exif), content_type="image/jpeg")
    assert (image["width"], image["height"]) == (48, 32)


@pytest.mark.parametrize("text", ["9" * 5000, "6x", "٦", "-1", ""])
async def test_text_that_looks_like_an_orientation_is_none(upload, client: httpx.AsyncClient, text: str) -> None:
    texts = PngInfo()
    texts.add_itxt(ORIENTATION, text)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, "PNG", pnginfo=texts)
    name = (await upload(buffer.getvalue()))["image_name"]
    thumbnail = await client.get(f"/api/v1/images/i/{name}/thumbnail")
    assert Image.open(io.BytesIO(thumbnail.content)).size == (8, 4)


async def test_palette_transparency_is_preserved(upload, client: httpx.AsyncClient) -> None:
    sent = Image.new("RGB", (8, 8), (1, 2, 3))
    image = await upload(encode_image(sent, transparency=(1, 2, 3)))
    stored = decode_image((await client.get(image["image_url"])).content)
    assert stored.convert("RGBA").getpixel((0, 0)) == (1, 2, 3, 0)


async def test_sixteen_bits_are_kept(upload, client: httpx.AsyncClient) -> None:
    sent = Image.new("I;16", (8, 8), 40_000)
    image = await upload(encode_image(sent))
    assert decode_image((await client.get(image["image_url"])).content).getpixel((0, 0)) == 40_000


async def test_only_metadata_workflow_and_graph_texts_are_kept(upload, client: httpx.AsyncClient) -> None:
    texts = {
        png.METADATA: json.dumps({"positive_prompt": "zëbra 🦓"}, ensure_ascii=False),
        png.WORKFLOW: json.dumps(WORKFLOW),
        png.GRAPH: json.dumps(GRAPH),
        "Comment": "where I live",
    }
    image = await upload(encode_image(sample_image(), texts=texts, dpi=(72, 72)))
    stored = decode_image((await client.get(image["image_url"])).content)
    assert image["has_workflow"] is True
    assert set(stored.info) == {png.METADATA, png.WORKFLOW, png.GRAPH}
    assert stored.info[png.METADATA] == texts[png.METADATA]
    answer = await client.get(f"/api/v1/images/i/{image['image_name']}/workflow")
    assert answer.json() == {"workflow": texts[png.WORKFLOW], "graph": texts[png.GRAPH]}
    metadata = await client.get(f"/api/v1/images/i/{image['image_name']}/metadata")
    assert metadata.json() == {"positive_prompt": "zëbra 🦓"}


@pytest.mark.parametrize("text", ["[]", "{", "1", '{"a": NaN}', ""])
async def test_metadata_that_is_no_object_is_dropped(upload, client: httpx.AsyncClient, text: str) -> None:
    image = await upload(encode_image(sample_image(), texts={png.METADATA: text}))
    assert (await client.get(f"/api/v1/images/i/{image['image_name']}/metadata")).json() is None


@pytest.mark.parametrize(
    ("workflow", "graph"),
    [
        ({**WORKFLOW, "meta": None}, []),
        ({"name": "w"}, {"nodes": [], "edges": []}),
        ([], {"nodes": {}}),
        (3, {"edges": []}),
    ],
)
async def test_malformed_workflow_and_graph_are_dropped(upload, client, workflow: object, graph: object) -> None:
    image = await upload(
        encode_image(sample_image(), texts={png.WORKFLOW: json.dumps(workflow), png.GRAPH: json.dumps(graph)})
    )
    answer = await client.get(f"/api/v1/images/i/{image['image_name']}/workflow")
    assert answer.json() == {"workflow": None, "graph": None}
    assert image["has_workflow"] is False


async def test_form_metadata_takes_precedence(upload, client: httpx.AsyncClient) -> None:
    data = encode_image(sample_image(), texts={png.METADATA: '{"a": 1}'})
    image = await upload(data, form={"metadata": '{"b": 2}'})
    assert (await client.get(f"/api/v1/images/i/{image['image_name']}/metadata")).json() == {"b": 2}
    dropped = await upload(data, form={"metadata": "no json"})
    assert (await client.get(f"/api/v1/images/i/{dropped['image_name']}/metadata")).json() is None


async def test_a_graph_alone_counts_as_a_workflow(upload) -> None:
    assert (await upload(encode_image(sample_image(), texts={png.GRAPH: json.dumps(GRAPH)})))["has_workflow"] is True


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (encode_image(sample_image()), "application/octet-stream"),
        (encode_image(sample_image()), "text/plain"),
        (b"", "image/png"),
        (b"not a picture", "image/png"),
        (encode_image(sample_image())[:-60], "image/png"),
        (encode_image(sample_image(), "JPEG")[:400], "image/jpeg"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png"),
    ],
)
async def test_files_that_are_not_images_are_refused(
    upload, resources: Resources, data: bytes, content_type: str
) -> None:
    await upload(data, content_type=content_type, status=415)
    assert files_in(resources) == []


def bomb(width: int, height: int) -> bytes:
    """Return a PNG whose header promises far more than its few bytes hold."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 10_000), (14_000, 10_000), (60_000, 60_000)])
async def test_decompression_bombs_are_refused_without_decoding(upload, resources, size) -> None:
    body = await upload(bomb(*size), status=413)
    assert body["detail"]
    assert files_in(resources) == []


async def test_an_unknown_board_is_reported_first(upload, resources: Resources) -> None:
    await upload(b"no picture", board_id="nope", status=404)
    assert files_in(resources) == []


async def test_an_upload_is_added_to_its_board(upload, client: httpx.AsyncClient) -> None:
    board = (await client.post("/api/v1/boards/", params={"board_name": "b"})).json()
    assert (await upload(board_id=board["board_id"]))["board_id"] == board["board_id"]


async def test_crop_visible_removes_transparent_borders(upload) -> None:
    sent = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    sent.paste((0, 255, 0, 255), (10, 5, 20, 30))
    image = await upload(encode_image(sent), crop_visible="true")
    assert (image["width"], image["height"]) == (10, 25)
    await upload(encode_image(Image.new("RGBA", (4, 4))), crop_visible="true", status=422)


async def test_resize_to(upload, client: httpx.AsyncClient) -> None:
    image = await upload(form={"resize_to": '{"width": 20, "height": 10}'})
    stored = decode_image((await client.get(image["image_url"])).content)
    assert (stored.size, stored.mode) == ((20, 10), "RGBA")


@pytest.mark.parametrize(
    "text",
    ["[1024,1024]", "{", '{"width": 0, "height": 5}', '{"width": 5}', '{"width": "5", "height": 5}',
     '{"width": 4097, "height": 4096}', '{"width": 99999999999999999999, "height": 1}'],
)  # fmt: skip
async def test_an_invalid_size_is_refused(upload, resources: Resources, text: str) -> None:
    await upload(form={"resize_to": text}, status=400)
    assert files_in(resources) == []


async def test_a_damaged_image_is_reported_before_an_invalid_size(upload) -> None:
    await upload(b"no", form={"resize_to": "[]"}, status=415)


async def test_segmentation_maps_keep_their_colours(upload, client: httpx.AsyncClient) -> None:
    sent = Image.new("RGB", (30, 30), "red")
    sent.paste((0, 255, 0), (0, 0, 13, 30))
    sent.paste((0, 0, 255), (13, 0, 19, 17))
    image = await upload(encode_image(sent), form={"resize_to": '{"width": 47, "height": 53}'})
    stored = decode_image((await client.get(image["image_url"])).content).convert("RGB")
    assert {colour for _, colour in stored.getcolors()} == {(255, 0, 0), (0, 255, 0), (0, 0, 255)}


async def test_black_and_white_stays_black_and_white(upload, client: httpx.AsyncClient) -> None:
    sent = Image.new("L", (30, 30))
    sent.paste(255, (3, 3, 11, 17))
    image = await upload(encode_image(sent), form={"resize_to": '{"width": 47, "height": 19}'})
    stored = decode_image((await client.get(image["image_url"])).content).convert("RGB")
    assert {colour for _, colour in stored.getcolors()} == {(0, 0, 0), (255, 255, 255)}


@pytest.mark.parametrize(
    "params", [{}, {"image_category": "general"}, {"image_category": "x", "is_intermediate": "false"}]
)
async def test_required_parameters(client: httpx.AsyncClient, params: dict[str, str]) -> None:
    answer = await client.post("/api/v1/images/upload", params=params, files={"file": ("x", b"x", "image/png")})
    assert answer.status_code == 422


async def test_an_upload_without_a_file_is_refused(client: httpx.AsyncClient) -> None:
    params = {"image_category": "general", "is_intermediate": "false"}
    assert (await client.post("/api/v1/images/upload", params=params)).status_code == 422


async def test_presigned_uploads_are_not_implemented(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/images/", json={"width": 8, "height": 8})).status_code == 501
    assert (await client.post("/api/v1/images/", json={"width": 8})).status_code == 422


@pytest.mark.parametrize(
    "size", ['{"width": 16000000, "height": 1}', '{"width": 1, "height": 70000}', '{"width": 5000, "height": 5000}']
)
async def test_target_pixels_and_sides_have_limits(client: httpx.AsyncClient, resources: Resources, size: str) -> None:
    answer = await client.post(
        "/api/v1/images/upload", params={"image_category": "user", "is_intermediate": "true"},
        files={"file": ("x.png", encode_image(sample_image()), "image/png")}, data={"resize_to": size},
    )  # fmt: skip
    assert 400 <= answer.status_code < 500
    assert "settings limits." in answer.text
    assert files_in(resources) == []


async def test_pixels_and_sides_of_an_image_have_limits(client: httpx.AsyncClient, resources: Resources) -> None:
    resources.settings = resources.settings.model_copy(update={"limits": Limits(image_pixels=1000, image_side=100)})
    for size, status in (((40, 40), 415), ((101, 1), 415), ((30, 30), 201)):
        answer = await client.post(
            "/api/v1/images/upload", params={"image_category": "user", "is_intermediate": "true"},
            files={"file": ("x.png", encode_image(sample_image(size=size)), "image/png")},
        )  # fmt: skip
        assert answer.status_code == status or (status == 415 and answer.status_code in (413, 415)), answer.text
