"""Gemini's image methods by requests as Open WebUI was seen to send them, and as Google's own document has them."""

import base64
import io
import subprocess
import sys
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


def test_models(http: httpx.Client) -> None:
    listed = http.get("/v1beta/models", headers=KEY).json()["models"]
    assert [model["name"] for model in listed] == ["models/Embedded Tiny"]
    assert http.get("/v1beta/models/Embedded Tiny").json() == listed[0]
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
    "two pictures": (
        GENERATE,
        {"json": {"contents": [{"parts": [{"text": "a"}, *[{"inlineData": {"data": SENT}}] * 2]}]}},
    ),
    "ten megabytes": (GENERATE, {"json": {"contents": [{"parts": [{"text": "a" * 10 * 2**20}]}]}}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_requests_get_google_errors_and_enqueue_nothing(http: httpx.Client, enqueued: Any, what: str) -> None:
    before = enqueued()
    path, sent = REFUSED[what]
    answer = http.post(path, headers=KEY, **sent)
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
