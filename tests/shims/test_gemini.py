"""Gemini's image methods by requests as Open WebUI was seen to send them, and as Google's own document has them."""

import base64
import io
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.server_process import Server
from tests.shims.conftest import circle_image, from_base64, mean_color, object_color, png

KEY = {"x-goog-api-key": "anything"}
PREDICT = "/v1beta/models/imagen-3.0-generate-002:predict"
GENERATE = "/v1beta/models/gemini-2.5-flash-image:generateContent"
STREAM = "/v1beta/models/gemini-2.5-flash-image:streamGenerateContent"


def test_predict_as_open_webui_sends_it(http: httpx.Client) -> None:
    body = {
        "instances": {"prompt": "a red circle on a white background"},
        "parameters": {"sampleCount": 2, "outputOptions": {"mimeType": "image/png"}},
    }
    answer = http.post(PREDICT, json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert [prediction["mimeType"] for prediction in predictions] == ["image/png"] * 2
    for prediction in predictions:
        image = from_base64(prediction["bytesBase64Encoded"])
        assert (image.format, image.size) == ("PNG", (128, 128))
        red, green, blue = object_color(image)
        assert red > max(green, blue) + 60


def test_predict_as_google_documents_it(http: httpx.Client) -> None:
    parameters = {
        "aspectRatio": "16:9",
        "seed": 4,
        "negativePrompt": "red",
        "output_options": {"mimeType": "image/jpeg"},
    }
    body = {"instances": [{"prompt": "a cat"}], "parameters": parameters}
    first, second = (http.post(PREDICT, json=body, headers=KEY).json()["predictions"] for _ in range(2))
    image = from_base64(first[0]["bytesBase64Encoded"])
    assert image.format == "JPEG"
    assert image.size == (168, 96)
    assert first == second


def test_generate_content_as_open_webui_sends_it(http: httpx.Client) -> None:
    body = {"contents": [{"parts": [{"text": "a blue square on a yellow background"}]}]}
    answer = http.post(f"/v1beta//{GENERATE.removeprefix('/v1beta/')}", json=body, headers=KEY).json()
    (candidate,) = answer["candidates"]
    assert candidate["finishReason"] == "STOP"
    image = from_base64(candidate["content"]["parts"][0]["inlineData"]["data"])
    red, green, blue = object_color(image)
    assert blue > max(red, green)
    usage = answer["usageMetadata"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    assert answer["modelVersion"] == "Embedded Tiny"


def test_an_edit_as_open_webui_sends_it(http: httpx.Client) -> None:
    """JPEG bytes under the name of PNG, in snake_case."""
    file = io.BytesIO()
    Image.new("RGB", (160, 96), (250, 235, 40)).save(file, "JPEG")
    inline = {"mime_type": "image/png", "data": base64.b64encode(file.getvalue()).decode()}
    body = {"contents": [{"parts": [{"text": "a yellow background"}, {"inline_data": inline}]}]}
    answer = http.post(GENERATE, json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    image = from_base64(answer.json()["candidates"][0]["content"]["parts"][0]["inlineData"]["data"])
    assert image.size == (160, 96)
    red, green, blue = mean_color(image)
    assert min(red, green) > blue + 40


def candidate_images(answer: dict[str, Any]) -> list[tuple[int, tuple[int, int]]]:
    """Return index and size of each candidate's image."""
    images = [(c["index"], c["content"]["parts"][0]["inlineData"]["data"]) for c in answer["candidates"]]
    return [(index, from_base64(data).size) for index, data in images]


@pytest.mark.parametrize("parameters", [{"alt": "sse"}, {}, {"alt": "json"}])
def test_stream_has_a_response_per_image(http: httpx.Client, parameters: dict[str, str]) -> None:
    config = {"candidateCount": 2, "seed": 5}
    body = {"contents": [{"parts": [{"text": "a cat"}]}], "generationConfig": config}
    answer = http.post(STREAM, params=parameters, json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    if parameters.get("alt") == "sse":
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = answer.text.split("\r\n\r\n")
        assert (events.pop(), {event[:6] for event in events}) == ("", {"data: "})
        responses = [json.loads(event[6:]) for event in events]
    else:
        assert answer.headers["content-type"] == "application/json"
        responses = answer.json()
    assert [candidate_images(response) for response in responses] == [[(0, (128, 128))], [(1, (128, 128))]]
    whole = http.post(GENERATE, json=body, headers=KEY).json()
    assert whole["usageMetadata"] == responses[-1]["usageMetadata"]
    assert whole["candidates"] == [candidate for response in responses for candidate in response["candidates"]]


def test_failure_in_a_stream_is_its_last_response(http: httpx.Client) -> None:
    """The first picture is deleted while the queue is paused."""
    queue = "/api/v1/queue/default"
    body = {"contents": [{"parts": [{"text": "a"}, {"inlineData": {"data": SENT}}]}]}
    with ThreadPoolExecutor(1) as pool:
        http.put(f"{queue}/processor/pause").raise_for_status()
        try:
            asking = pool.submit(http.post, STREAM, params={"alt": "sse"}, json=body, headers=KEY)
            while not (pending := [i for i in http.get(f"{queue}/list_all").json() if i["status"] == "pending"]):
                assert not asking.done(), asking.result().text
                time.sleep(0.05)
            name = pending[0]["session"]["graph"]["nodes"]["i2l"]["image"]["image_name"]
            http.delete(f"/api/v1/images/i/{name}").raise_for_status()
        finally:
            http.put(f"{queue}/processor/resume").raise_for_status()
        (event,) = asking.result(60).text.removesuffix("\r\n\r\n").split("\r\n\r\n")
    assert event.startswith('data: {"error":')  # the SDK looks for exactly this
    error = json.loads(event[6:])["error"]
    assert (error["code"], error["status"]) == (500, "INTERNAL")
    assert "failed" in error["message"]


def test_second_message_edits_the_image_before_it(http: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("RGB", (160, 96), (250, 235, 40)).save(file, "PNG")
    data = base64.urlsafe_b64encode(file.getvalue()).decode().rstrip("=")
    contents = [
        {"role": "user", "parts": [{"text": "a blue sky"}]},
        {"role": "model", "parts": [{"text": "Here it is."}, {"inlineData": {"data": data}}]},
        {"role": "user", "parts": [{"text": "a yellow background"}]},
    ]
    answer = http.post(GENERATE, json={"contents": contents}, headers=KEY)
    image = from_base64(answer.json()["candidates"][0]["content"]["parts"][0]["inlineData"]["data"])
    assert image.size == (160, 96)
    red, green, blue = mean_color(image)
    assert min(red, green) > blue + 40
    assert "warning" not in answer.headers


def test_of_several_images_the_first_is_edited(http: httpx.Client) -> None:
    """The embedded model has no adapter for reference images."""
    other = base64.b64encode(png(circle_image(64))).decode()
    parts = [{"text": "a cat"}, {"inlineData": {"data": SENT}}, {"inlineData": {"data": other}}]
    answer = http.post(GENERATE, json={"contents": {"parts": parts}}, headers=KEY)
    assert candidate_images(answer.json()) == [(0, (128, 128))]
    assert "only the first image is edited" in answer.headers["warning"]


@pytest.mark.parametrize("prefix", ["/v1beta1/publishers/google", "/v1/publishers/google"])
def test_vertex_paths(http: httpx.Client, prefix: str) -> None:
    answer = http.post(f"{prefix}/models/imagen-4:predict", json={"instances": {"prompt": "a"}}, headers=KEY)
    assert from_base64(answer.json()["predictions"][0]["bytesBase64Encoded"]).size == (128, 128)
    unknown = http.post(f"{prefix}/models/imagen-4:nothing", json={}, headers=KEY)
    assert (unknown.status_code, unknown.json()["error"]["status"]) == (404, "NOT_FOUND")


def test_models(http: httpx.Client) -> None:
    listed = http.get("/v1beta/models", headers=KEY).json()["models"]
    assert [model["name"] for model in listed] == ["models/Embedded Tiny"]
    assert http.get("/v1beta/models/Embedded Tiny").json() == listed[0]
    for alias in ("imagen-4.0-generate-001", "gemini-2.5-flash-image"):
        assert http.get(f"/v1beta/models/{alias}").json() == listed[0] | {"name": f"models/{alias}"}
    for google in ({"headers": KEY}, {"params": {"key": "anything"}}, {"headers": {"x-goog-api-client": "a"}}):
        assert http.get("/v1/models", **google).json() == {"models": listed}
        assert http.get("/v1/models/Embedded Tiny", **google).json() == listed[0]
        assert http.get("/v1/models/nonsense", **google).json()["error"]["status"] == "NOT_FOUND"
        assert http.post("/v1/models/x:countTokens", **google).json()["error"]["status"] == "NOT_FOUND"
    assert http.get("/v1/models").json()["object"] == "list"
    named = http.post("/v1beta/models/Embedded Tiny:predict", json={"instances": {"prompt": "a cat"}})
    assert named.status_code == 200
    for answer in (
        http.get("/v1beta/models/nonsense"),
        http.post("/v1beta/models/x:predict", json={"instances": {"prompt": "a"}}),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["status"] == "NOT_FOUND"


def picture(data: str) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": data}}]}]}


SENT = base64.b64encode(png(circle_image())).decode()
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "no instances": (PREDICT, {"json": {}}),
    "no prompt": (PREDICT, {"json": {"instances": {}}}),
    "several instances": (PREDICT, {"json": {"instances": [{"prompt": "a"}, {"prompt": "b"}]}}),
    "a hundred": (PREDICT, {"json": {"instances": {"prompt": "a"}, "parameters": {"sampleCount": 100}}}),
    "a picture for imagen": (PREDICT, {"json": {"instances": {"prompt": "a", "image": {}}}}),
    "no json": (PREDICT, {"content": b"nonsense"}),
    "no contents": (GENERATE, {"json": {}}),
    "no text": (GENERATE, {"json": {"contents": [{"parts": [{"text": " "}]}]}}),
    "only the model speaks": (GENERATE, {"json": {"contents": [{"role": "model", "parts": [{"text": "a"}]}]}}),
    "not base64": (GENERATE, {"json": picture("§§§§")}),
    "not a picture": (GENERATE, {"json": picture("AAAA")}),
    "an address": (GENERATE, {"json": picture("http://127.0.0.1:1/a.png")}),
    "a file elsewhere": (
        GENERATE,
        {"json": {"contents": [{"parts": [{"text": "a"}, {"fileData": {"fileUri": "u"}}]}]}},
    ),
    "two pictures for those who insist": (
        GENERATE,
        {
            "json": {"contents": [{"parts": [{"text": "a"}, *[{"inlineData": {"data": SENT}}] * 2]}]},
            "headers": KEY | {"Prefer": "handling=strict"},
        },
    ),
    "seventeen pictures": (
        GENERATE,
        {"json": {"contents": [{"parts": [{"text": "a"}, *[{"inlineData": {"data": SENT}}] * 17]}]}},
    ),
    "a stream of a hundred": (STREAM, {"json": {"contents": [], "generationConfig": {"candidateCount": 100}}}),
    "a stream without text": (STREAM, {"json": {"contents": [{"parts": [{"text": " "}]}]}}),
    "ten megabytes": (GENERATE, {"json": {"contents": [{"parts": [{"text": "a" * 10 * 2**20}]}]}}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_requests_get_google_errors_and_enqueue_nothing(http: httpx.Client, enqueued: Any, what: str) -> None:
    before = enqueued()
    path, sent = REFUSED[what]
    answer = http.post(path, **({"headers": KEY} | sent))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert len(answer.content) < 2_000
    assert enqueued() == before


def test_unknown_methods_return_google_errors(http: httpx.Client) -> None:
    answer = http.post("/v1beta/models/x:countTokens", json={})
    assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")


def test_key_is_required_once_one_exists(tmp_path: Path) -> None:
    """In single-user mode too; every place in which a client may put it counts."""
    server = Server(tmp_path / "keyed").start()
    try:
        command = [sys.executable, "-m", "invokeclone", "user", "key", "add", "test", "--root", str(server.root)]
        key = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        answer = server.client.get("/v1beta/models")
        assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
        assert server.client.get("/v1beta/models", headers={"x-goog-api-key": key}).status_code == 200
        assert server.client.get("/v1beta/models", params={"key": key}).status_code == 200
        assert server.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert server.client.get("/v1/models", auth=("anyone", key)).status_code == 200
        assert server.client.get("/api/v1/images/").status_code == 200
    finally:
        server.client.close()
        server.stop()


def test_loras_are_applied_by_name(http: httpx.Client, enqueued: Any) -> None:
    """The names reach the library: there are none of these."""
    before = enqueued()
    for loras, status, text in (
        ([{"model": "nothing", "weight": 0.5, "textWeight": 0.1}], 404, "there is no LoRA 'nothing'"),
        ([{"model": "nothing", "textWeight": 50}], 400, "loras.0.text_weight"),
        ("nothing", 400, "loras"),
    ):
        predicted = {"instances": {"prompt": "a cat"}, "parameters": {"loras": loras}}
        generated = {"contents": [{"parts": [{"text": "a cat"}]}], "generationConfig": {"loras": loras}}
        for address, body in ((PREDICT, predicted), (GENERATE, generated)):
            answer = http.post(address, json=body, headers=KEY)
            assert answer.status_code == status, answer.text
            assert text in answer.json()["error"]["message"]
    assert enqueued() == before
