"""The Images API by raw requests: those that Open WebUI was seen to send, and those that nobody should send."""

import base64
import json
import threading
import time
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.server_process import Server
from tests.shims.conftest import circle_image, from_base64, png

GENERATIONS = "/v1/images/generations"


def with_empty_key(http: httpx.Client, path: str, **what: Any) -> tuple[int, str, Any]:
    """Post with `Authorization: Bearer `, as aiohttp sends an empty key and httpx would not; return status, type and JSON."""
    built = http.build_request("POST", path, **what)
    connection = HTTPConnection(built.url.host, built.url.port, timeout=120)
    headers = {"Content-Type": built.headers["content-type"], "Accept": "*/*", "Authorization": "Bearer "}
    connection.request("POST", built.url.raw_path.decode(), built.read(), headers)
    answer = connection.getresponse()
    result = answer.status, answer.headers["content-type"], json.loads(answer.read())
    connection.close()
    return result


def test_generation_as_open_webui_sends_it(http: httpx.Client) -> None:
    """With an empty key, a base address that ends in a slash, and parameters that its admin added."""
    body = {"model": "dall-e-2", "prompt": "a green circle", "n": 2, "size": "64x64", "response_format": "b64_json"}
    sent = body | {"steps": 4, "negative_prompt": "red", "user": None, "moderation": "low"}
    status, kind, answer = with_empty_key(http, "/v1//images/generations", json=sent)
    assert (status, kind) == (200, "application/json"), answer
    assert [from_base64(item["b64_json"]).size for item in answer["data"]] == [(64, 64)] * 2


def test_default_response_format_is_base64(http: httpx.Client) -> None:
    body = {"model": "gpt-image-1", "prompt": "a cat", "n": 1, "size": "auto", "quality": None}
    data = http.post(GENERATIONS, json=body).json()["data"]
    assert list(data[0]) == ["b64_json"]


@pytest.mark.parametrize("name", ["image", "image[]"])
def test_edit_as_open_webui_sends_it(http: httpx.Client, name: str) -> None:
    fields = {"model": "", "prompt": "a blue square", "n": "1", "size": "64x64", "response_format": "b64_json"}
    files = [(name, ("0f.png", png(circle_image()), "image/png"))]
    status, _, answer = with_empty_key(http, "/v1/images/edits?api-version=1", data=fields, files=files)
    assert status == 200, answer
    assert from_base64(answer["data"][0]["b64_json"]).size == (64, 64)


IMAGE = base64.b64encode(png(circle_image(64))).decode()
URL_SAFE = base64.urlsafe_b64encode(png(circle_image(64))).decode().rstrip("=")
JSON_IMAGES: dict[str, dict[str, Any]] = {
    "as OpenAI documents it": {"images": [{"image_url": f"data:image/png;base64,{IMAGE}"}]},
    "URL-safe": {"images": [{"image_url": URL_SAFE}]},
    "one text": {"image": IMAGE},
    "as in chats": {"image": {"image_url": {"url": f"data:;base64,{IMAGE}"}}},
    "as in responses": {"image": [{"b64_json": IMAGE}]},
}


@pytest.mark.parametrize("how", JSON_IMAGES)
def test_edits_and_variations_accept_json(http: httpx.Client, how: str) -> None:
    sent = JSON_IMAGES[how] | {"prompt": "a cat", "n": 1, "quality": "low", "size": "64x64", "mask": None}
    for path in ("edits", "variations"):
        answer = http.post(f"/v1/images/{path}", json=sent)
        assert answer.status_code == 200, answer.text
        assert from_base64(answer.json()["data"][0]["b64_json"]).size == (64, 64)
    masked = sent | {"mask": {"image_url": f"data:image/png;base64,{IMAGE}"}}
    assert http.post("/v1/images/edits", json=masked).status_code == 200


REFUSED_JSON: dict[str, dict[str, Any]] = {
    "no image": {},
    "an empty list": {"images": []},
    "a file id": {"images": [{"file_id": "file-1"}]},
    "a number": {"image": 5},
    "nested lists": {"image": [[IMAGE]]},
    "an address": {"images": [{"image_url": "http://127.0.0.1:9/a.png"}]},
    "not base64": {"image": "§§§"},
    "seventeen": {"image": [IMAGE] * 17},
}


@pytest.mark.parametrize("what", REFUSED_JSON)
def test_edits_refuse_json_without_usable_images(http: httpx.Client, enqueued: Any, what: str) -> None:
    before = enqueued()
    answer = http.post("/v1/images/edits", json={"prompt": "a cat", **REFUSED_JSON[what]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image"), answer.text
    assert enqueued() == before


def test_edits_in_other_media_types_are_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/images/edits", content=b"a cat", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (415, "invalid_request_error")
    assert "multipart/form-data" in answer.json()["error"]["message"]


def test_generated_image_is_in_the_gallery_with_its_origin(http: httpx.Client) -> None:
    http.post(
        GENERATIONS, json={"prompt": "a purple cat (sitting)", "size": "64x64", "quality": "low"}
    ).raise_for_status()
    items = http.get("/api/v1/queue/default/list_all").json()
    assert items[-1]["origin"] == "openai"
    newest = http.get("/api/v1/images/", params={"limit": 1, "is_intermediate": False}).json()["items"][0]
    metadata = http.get(f"/api/v1/images/i/{newest['image_name']}/metadata").json()
    assert metadata["positive_prompt"] == r"a purple cat \(sitting\)"


REFUSED: dict[str, dict[str, Any]] = {
    "no body": {"content": b""},
    "no json": {"content": b"{nonsense"},
    "a list": {"json": []},
    "no prompt": {"json": {"n": 1}},
    "prompt of a wrong kind": {"json": {"prompt": ["a"]}},
    "a hundred pictures": {"json": {"prompt": "a", "n": 100}},
    "a line of a hundred thousand": {"json": {"prompt": "a", "size": "100000x1"}},
    "too many pixels": {"json": {"prompt": "a", "size": "99999x99999"}},
    "ten megabytes": {"json": {"prompt": "a" * 10 * 2**20}},
    "deep": {"content": b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}"},
    "lone surrogate": {"content": b'{"prompt": "\\ud800"}'},
    "not finite": {"content": b'{"prompt": "a", "cfg_scale": 1e999}'},
}


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_requests_get_openai_errors_and_enqueue_nothing(http: httpx.Client, enqueued: Any, what: str) -> None:
    before = enqueued()
    answer = http.post(GENERATIONS, **REFUSED[what])
    assert answer.status_code in (400, 413), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert len(answer.content) < 2_000
    assert enqueued() == before


def test_edits_refuse_images_that_are_not_files(http: httpx.Client, enqueued: Any) -> None:
    before = enqueued()
    for files in (
        {"image": (None, "http://127.0.0.1:9/a.png")},
        {"image": (None, "data:image/png;base64,AAAA")},
        {"prompt": (None, "a")},
    ):
        answer = http.post("/v1/images/edits", data={"prompt": "a cat"}, files=files)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "image"
    assert http.post("/v1/images/edits", content=b"nonsense").status_code == 400
    assert enqueued() == before


def test_decompression_bomb_is_refused(http: httpx.Client, enqueued: Any) -> None:
    before = enqueued()
    bomb = png(Image.new("1", (20_000, 20_000)))
    answer = http.post("/v1/images/edits", data={"prompt": "a"}, files={"image": ("a.png", bomb, "image/png")})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "image"
    assert enqueued() == before


def wait_for_item(http: httpx.Client, server: Server, known_ids: set[int]) -> dict[str, Any]:
    def find() -> Any:
        items = [item for item in http.get("/api/v1/queue/default/list_all").json() if item["item_id"] not in known_ids]
        return next((item for item in items if item["status"] in ("canceled", "completed", "failed")), None)

    ended_item: dict[str, Any] = server.wait_for(find, "the item to end")
    return ended_item


@pytest.mark.parametrize("stream", [False, True])
def test_client_disconnect_cancels_its_items(http: httpx.Client, server: Server, stream: bool) -> None:
    known_ids = {item["item_id"] for item in http.get("/api/v1/queue/default/list_all").json()}
    body = {"prompt": "a cat", "size": "256x256", "steps": 900, "stream": stream, "partial_images": 3}

    def leave() -> None:
        with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=server.url, timeout=1.5) as impatient:
            if stream:
                with impatient.stream("POST", GENERATIONS, json=body) as answer:
                    started = time.monotonic()
                    for _ in answer.iter_raw():
                        if time.monotonic() - started > 1:
                            raise httpx.ReadTimeout("seen enough")
            else:
                impatient.post(GENERATIONS, json=body)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    assert wait_for_item(http, server, known_ids)["status"] == "canceled"


def test_unknown_paths_return_openai_errors(http: httpx.Client) -> None:
    deployed = "/openai/deployments/a/nothing"
    for method, path in (("GET", "/v1/nothing"), ("POST", "/v1/embeddings"), ("GET", deployed), ("GET", GENERATIONS)):
        answer = http.request(method, path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "unknown_url"


def test_loras_are_applied_by_name(http: httpx.Client, enqueued: Any) -> None:
    """The names reach the library: there are none of these."""
    before = enqueued()
    files = [("image", ("a.png", png(circle_image()), "image/png"))]
    for loras, status, text in (
        ([{"model": "nothing", "weight": 0.5}], 404, "there is no LoRA 'nothing'"),
        ([{"model": "nothing", "weight": 50}], 400, "loras.0.weight"),
        ([{"model": "nothing"}] * 40, 400, "at most 32"),
    ):
        answer = http.post(GENERATIONS, json={"prompt": "a cat", "loras": loras})
        assert (answer.status_code, text in answer.json()["error"]["message"]) == (status, True), answer.text
        fields = {"prompt": "a cat", "loras": json.dumps(loras)}
        answer = http.post("/v1/images/edits", data=fields, files=files)
        assert (answer.status_code, text in answer.json()["error"]["message"]) == (status, True), answer.text
    answer = http.post("/v1/images/edits", data={"prompt": "a cat", "loras": "style:0.5"}, files=files)
    assert answer.status_code == 400
    assert "must be JSON" in answer.json()["error"]["message"]
    assert http.post("/v1/images/edits", data={"prompt": "a cat", "loras": "", "size": "64x64"}, files=files).is_success
    assert enqueued() == before + 1
