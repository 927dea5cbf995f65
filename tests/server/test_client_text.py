"""Text and JSON of clients outside of JSON bodies: forms, file names, headers and what is embedded in files follow the same rule."""

import base64
import io
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL.PngImagePlugin import PngInfo

from invokeclone.images import api as images
from invokeclone.images.videos import api as videos
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.json_text import NotStorable, decode_text
from invokeclone.kit.resources import Resources
from invokeclone.presets import api as presets
from invokeclone.server.app import create_app
from invokeclone.shims import routers as shims
from tests.applications import encode_image, sample_image, serving

NOT_STORABLE = [
    r'{"a": "\ud800"}', r'{"a": "\u0000"}', '{"a": NaN}', '{"a": 1e999}', f'{{"a": {10**30}}}', '{"a":' * 150 + "1" + "}" * 150,
]  # fmt: skip
HEADERS = [
    "authorization", "cookie", "content-type", "accept-encoding", "if-none-match", "if-range", "range", "origin", "referer",
    "x-forwarded-host", "x-forwarded-for", "x-forwarded-proto", "sec-fetch-site", "content-encoding", "content-length", "api-key",
    "x-goog-api-key", "user-agent", "accept-language", "accept",
]  # fmt: skip
HOSTILE_HEADERS = [b"\xff\xfe", b"a\x01b", b"bytes=99999999999999999999999-", b"x" * 8000, b"Basic " + b"//" * 600, b"Basic _w==",
                   b"Bearer \xff", b"multipart/form-data", b"multipart/form-data; boundary=\xff", b"-1", b"", b'W/"\xff"', b"a=b; media=\xff"]  # fmt: skip
CALLS = [
    ("GET", "/"), ("GET", "/v1/models"), ("GET", "/sdapi/v1/samplers"), ("GET", "/api/v2/models/"),
    ("GET", "/api/v1/images/names"), ("POST", "/api/v1/boards/?board_name=x"), ("POST", "/api/v1/style_presets/"),
    ("POST", "/api/v1/videos/upload?video_category=general&is_intermediate=true"), ("POST", "/v1/images/edits"), ("POST", "/upload/image"),
]  # fmt: skip
PNG = encode_image(sample_image())


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, images.router, videos.router, presets.router, *shims.ROUTERS) as served:
        yield served


@pytest.fixture
async def whole(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, worker_command=None)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as opened,
    ):
        yield opened


FORMS: dict[str, tuple[str, dict[str, str], str]] = {
    "metadata of an image": ("/api/v1/images/upload?image_category=user&is_intermediate=true", {}, "metadata"),
    "size of an image": ("/api/v1/images/upload?image_category=user&is_intermediate=true", {}, "resize_to"),
    "a preset": ("/api/v1/style_presets/", {}, "data"),
    "ComfyUI's mask": ("/upload/mask", {}, "original_ref"),
    "OpenAI's LoRAs": ("/v1/images/edits", {"prompt": "x"}, "loras"),
}


async def send(client: httpx.AsyncClient, form: str, text: str, **arguments: Any) -> httpx.Response:
    address, fields, field = FORMS[form]
    files = dict.fromkeys(("file", "image"), ("x.png", PNG, "image/png"))
    return await client.post(address, data={**fields, field: text}, files=files, **arguments)


@pytest.mark.parametrize("form", FORMS)
async def test_json_in_forms_must_be_storable(client: httpx.AsyncClient, form: str) -> None:
    for text in [*NOT_STORABLE, '{"a": "\0"}']:
        answer = await send(client, form, text)
        assert 400 <= answer.status_code < 500, (text, answer.text)
    if form != "metadata of an image":
        assert 400 <= (await send(client, form, "{")).status_code < 500


async def test_video_metadata_must_be_storable(client: httpx.AsyncClient) -> None:
    for text in NOT_STORABLE:
        answer = await client.post(
            "/api/v1/videos/upload?video_category=general&is_intermediate=true",
            data={"metadata": text},
            files={"file": ("v.mp4", b"\0\0\0\x20ftypisom" + bytes(40), "video/mp4")},
        )
        assert answer.status_code == 422, answer.text
        assert "MP4" not in answer.text, "the metadata are looked at before the file"


@pytest.mark.parametrize("charset", ["punycode", "undefined", "unicode_escape", "utf-7", "utf-16", "rot13", "no-such"])
async def test_forms_are_always_decoded_as_utf_8(client: httpx.AsyncClient, charset: str) -> None:
    """Python knows codecs that make halves of surrogate pairs of plain bytes, and one that always fails."""
    body = b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n\\ud800+2AA-\xff\r\n--x--\r\n'
    for address in ("/api/v1/style_presets/", "/upload/mask", "/v1/images/edits"):
        kind = f"multipart/form-data; boundary=x; charset={charset}"
        answer = await client.post(address, content=body, headers={"content-type": kind})
        assert (answer.status_code, "UTF-8" in answer.text) == (415, True), answer.text


@pytest.mark.parametrize("address", ["/api/v1/images/upload?image_category=user&is_intermediate=true", "/upload/image"])
async def test_file_and_field_names_with_nul_are_refused(client: httpx.AsyncClient, address: str) -> None:
    for name, filename in ((b"image", b"a\0.png"), (b"im\0age", b"a.png")):
        head = b'--x\r\nContent-Disposition: form-data; name="' + name + b'"; filename="' + filename + b'"\r\n'
        body = head + b"Content-Type: image/png\r\n\r\n" + PNG + b"\r\n--x--\r\n"
        answer = await client.post(address, content=body, headers={"content-type": "multipart/form-data; boundary=x"})
        assert 400 <= answer.status_code < 500
        assert "NUL" in answer.text


async def test_texts_in_files_must_be_storable(client: httpx.AsyncClient) -> None:
    for text in NOT_STORABLE:
        data = encode_image(
            sample_image(), texts={"invokeai_metadata": text, "invokeai_graph": f'{{"nodes": {{}}, "edges": [{text}]}}'}
        )
        answer = await client.post(
            "/api/v1/images/upload?image_category=user&is_intermediate=false",
            files={"file": ("x.png", data, "image/png")},
        )
        assert (answer.status_code, answer.json()["has_workflow"]) == (201, False)
        name = answer.json()["image_name"]
        assert (await client.get(f"/api/v1/images/i/{name}/metadata")).json() is None


async def test_escaped_surrogates_in_image_settings_are_returned_unchanged(client: httpx.AsyncClient) -> None:
    info = PngInfo()
    info.add_text("parameters", 'x\nSteps: 1, Sampler: Euler, Size: 8x8, Model: "\\ud800"')
    file = io.BytesIO()
    sample_image().save(file, "PNG", pnginfo=info)
    answer = await client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(file.getvalue()).decode()})
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameters"]["Model"] == '"\\ud800"'


async def header_failures(client: httpx.AsyncClient, limit: int) -> list[str]:
    answer = await client.post(
        "/api/v1/images/upload?image_category=user&is_intermediate=false", files={"file": ("x.png", PNG, "image/png")}
    )
    image = f"/api/v1/images/i/{answer.json()['image_name']}"
    calls = [("GET", f"{image}/full"), ("GET", f"{image}/thumbnail"), *CALLS]
    every = [(*call, header, value) for call in calls for header in HEADERS for value in HOSTILE_HEADERS]
    failures = []
    for method, address, header, value in random.Random(3).sample(every, min(limit, len(every))):
        answer = await client.request(method, address, headers=[(header.encode(), value)])
        if answer.status_code >= 500:
            failures.append(f"{answer.status_code} {method} {address} {header}: {value[:30]!r} {answer.text[:100]}")
    return failures


async def test_sampled_header_values_cause_no_5xx(whole: httpx.AsyncClient) -> None:
    assert await header_failures(whole, 80) == []


@pytest.mark.slow
async def test_no_header_value_causes_a_5xx(whole: httpx.AsyncClient) -> None:
    assert await header_failures(whole, 10_000) == []


@pytest.mark.parametrize("text", ['"\ud800"', r'"\ud800"', "NaN", "[" * 200 + "]" * 200, '"\0"', str(2**64)])
def test_unstorable_str_is_refused(text: str) -> None:
    with pytest.raises((NotStorable, json.JSONDecodeError)):
        decode_text(text, Limits())
