"""The official `openai` package against the real server: version 3 here, version 2 by running this file with it first in line.

`scripts/test` puts version 2 into `.cache/openai-2`; without it that part is skipped.
"""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import (
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    __version__,
)
from PIL import Image, ImageDraw

from tests.server_process import Server
from tests.shims.conftest import circle_image, from_base64, mean_color, object_color, png, read_image

OLDER = Path(__file__).parents[2] / ".cache" / "openai-2"
ADDRESS = "INVOKECLONE_TEST_SERVER"
SMALL = {"size": "128x128", "extra_body": {"seed": 3}}


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest) -> str:
    """Return the address of the server that the run with the other version started, or of this run's own."""
    url = os.environ.get(ADDRESS)
    if url:
        return url
    server: Server = request.getfixturevalue("server")
    return server.url


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{address}/v1", api_key="anything", max_retries=0) as openai_client:
        yield openai_client


@pytest.mark.skipif(ADDRESS in os.environ, reason="this is the run with the other version")
@pytest.mark.skipif(not OLDER.is_dir(), reason="openai 2 is not in .cache; scripts/test puts it there")
def test_this_file_passes_with_sdk_version_2(address: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider"],
        env={**os.environ, "PYTHONPATH": str(OLDER), ADDRESS: address},
        capture_output=True,
        text=True,
        check=False,
        cwd=OLDER.parents[1],
    )
    assert run.returncode == 0, run.stdout[-6000:]


def test_expected_sdk_version_is_installed() -> None:
    assert __version__.split(".")[0] == ("2" if ADDRESS in os.environ else "3")


def test_models(client: OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == ["Embedded Tiny"]
    assert listed[0].created > 1_700_000_000
    for name in ("Embedded Tiny", "dall-e-3", "gpt-image-1"):  # OpenAI's names stand for the default model
        assert (client.models.retrieve(name).owned_by, client.models.retrieve(name).id) == ("invokeclone", name)
    with pytest.raises(NotFoundError) as error:
        client.models.retrieve("nonsense")
    assert error.value.code == "model_not_found"


def test_image_follows_its_prompt(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a red circle on a white background", model="gpt-image-1", **SMALL)
    image = from_base64(answer.data[0].b64_json)
    assert (image.format, image.size) == ("PNG", (128, 128))
    red, green, blue = object_color(image)
    assert red > 150
    assert max(green, blue) < 110
    assert min(mean_color(image, (0, 0, 16, 16))) > 190
    assert (answer.size, answer.quality, answer.background, answer.output_format) == (
        "128x128",
        "medium",
        "opaque",
        "png",
    )
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens == 64


def test_count_format_and_quality(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="a blue square", n=2, size="64x64", quality="low", output_format="webp", output_compression=50
    )
    files = [base64.b64decode(item.b64_json) for item in answer.data]
    assert [read_image(file).format for file in files] == ["WEBP", "WEBP"]
    assert [read_image(file).size for file in files] == [(64, 64)] * 2
    assert files[0] != files[1]


def test_size_auto_is_the_model_default_and_odd_sizes_are_rounded(client: OpenAI) -> None:
    auto = client.images.generate(prompt="a cat", model="Embedded Tiny", size="auto", output_format="jpeg")
    assert from_base64(auto.data[0].b64_json).size == (128, 128)
    odd = client.images.generate(prompt="a cat", size="100x75", quality="low")
    assert from_base64(odd.data[0].b64_json).size == (104, 72)
    assert odd.size == "104x72"


@pytest.mark.parametrize("options", [{"response_format": "url"}, {"model": "dall-e-3"}, {"model": "dall-e-2", "n": 2}])
def test_image_url_needs_no_key_and_serves_one_image(client: OpenAI, options: dict[str, Any]) -> None:
    answer = client.images.generate(prompt="a cat", size="64x64", quality="low", **options)
    assert len({item.url for item in answer.data}) == options.get("n", 1)
    url = answer.data[0].url
    assert answer.data[0].b64_json is None
    got = httpx.get(url)
    assert (got.status_code, got.headers["content-type"]) == (200, "image/png")
    assert read_image(got.content).size == (64, 64)
    assert httpx.get(url[:-3]).status_code == 404


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("dall-e-2", {"url"}),
        ("dall-e-3", {"url"}),
        ("gpt-image-1", {"b64_json"}),
        ("Embedded Tiny", {"b64_json"}),
        (None, {"url", "b64_json"}),
    ],
)
def test_default_response_format_is_that_of_the_model(client: OpenAI, model: str | None, fields: set[str]) -> None:
    named = {"model": model} if model else {}
    sent = ("a.png", png(circle_image(64)), "image/png")
    for answer in (
        client.images.generate(prompt="a cat", size="64x64", quality="low", **named),
        client.images.edit(image=sent, prompt="a cat", size="64x64", quality="low", **named),
    ):
        assert {name for name in ("url", "b64_json") if getattr(answer.data[0], name)} == fields
        if url := answer.data[0].url:
            assert read_image(httpx.get(url).content).size == (64, 64)


def test_an_edit_changes_inside_the_mask_and_keeps_the_outside(client: OpenAI) -> None:
    base = circle_image()
    mask = Image.new("RGBA", base.size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).rectangle((64, 0, 127, 127), fill=(0, 0, 0, 0))
    answer = client.images.edit(
        image=("base.png", png(base), "image/png"),
        mask=("mask.png", png(mask), "image/png"),
        prompt="a blue background",
        size="128x128",
    )
    image = from_base64(answer.data[0].b64_json).convert("RGB")
    assert image.crop((0, 0, 64, 128)).tobytes() == base.crop((0, 0, 64, 128)).tobytes()
    before, after = (mean_color(picture, (72, 0, 128, 128)) for picture in (base, image))
    assert sum(abs(a - b) for a, b in zip(before, after, strict=True)) > 60


def test_edit_without_a_mask_starts_from_the_image(client: OpenAI) -> None:
    base = Image.new("RGB", (200, 100), (250, 240, 30))
    sent = [("a.png", png(base), "image/png")]
    answer = client.images.edit(image=sent, prompt="a yellow background", input_fidelity="high", n=2)
    assert [from_base64(item.b64_json).size for item in answer.data] == [(200, 104)] * 2
    red, green, blue = mean_color(from_base64(answer.data[0].b64_json))
    assert min(red, green) > blue + 60


def test_what_the_model_cannot_do_is_a_warning(client: OpenAI) -> None:
    """Transparency and further images; an error for those who insist."""
    picture = ("a.png", png(circle_image(64)), "image/png")
    options = {"image": [picture, picture], "prompt": "a cat", "size": "64x64", "quality": "low"}
    raw = client.images.with_raw_response.edit(**options, background="transparent", model="gpt-image-1")
    answer = raw.parse()
    assert answer.background == "opaque"
    assert from_base64(answer.data[0].b64_json).size == (64, 64)
    assert answer.warnings[0] == "no installed model has an alpha channel: the background is opaque"
    assert answer.warnings[1].startswith("only the first image is edited, 1 of 2 images is not used: no IP-Adapter")
    assert raw.headers["warning"] == ", ".join(f'299 - "{text}"' for text in answer.warnings)
    with pytest.raises(BadRequestError, match="no IP-Adapter") as error:
        client.images.edit(**options, extra_headers={"Prefer": "respond-async, handling=strict"})
    assert error.value.param == "image"
    plain = client.images.with_raw_response.generate(prompt="a", size="64x64", quality="low", background="opaque")
    assert "warning" not in plain.headers
    assert "warnings" not in plain.parse().model_dump()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_variation_resembles_its_image(client: OpenAI) -> None:
    answer = client.images.create_variation(image=("a.png", png(circle_image()), "image/png"), size="128x128")
    assert min(mean_color(from_base64(answer.data[0].b64_json), (0, 0, 16, 16))) > 170


def test_stream_ends_with_the_image(client: OpenAI) -> None:
    stream = client.images.generate(prompt="a green square", size="128x128", stream=True, partial_images=2)
    events = list(stream)
    assert [event.type for event in events][-1] == "image_generation.completed"
    partial = events[:-1]
    assert {event.type for event in partial} <= {"image_generation.partial_image"}
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert 1 <= len(partial) <= 2
    assert all(from_base64(event.b64_json).size == (128, 128) for event in events)
    assert events[-1].usage.total_tokens > 0


def test_an_edit_may_stream_too(client: OpenAI) -> None:
    sent = ("a.png", png(circle_image()), "image/png")
    events = list(client.images.edit(image=sent, prompt="a blue circle", stream=True, output_format="jpeg"))
    assert [event.type for event in events] == ["image_edit.completed"]
    assert from_base64(events[0].b64_json).format == "JPEG"


WRONG = {
    "no prompt": {"prompt": ""},
    "too many": {"prompt": "a", "n": 33},
    "a hundred": {"prompt": "a", "n": 100},
    "size": {"prompt": "a", "size": "large"},
    "size of hostile form": {"prompt": "a", "size": "100000x1"},
    "size nought": {"prompt": "a", "size": "0x0"},
    "transparent": {"prompt": "a", "background": "transparent", "extra_headers": {"Prefer": "handling=strict"}},
    "background": {"prompt": "a", "background": "green"},
    "count of a wrong type": {"prompt": "a", "n": "many"},
    "no count": {"prompt": "a", "n": 0},
    "prompt of a wrong type": {"prompt": {"text": "a"}},
    "compressed png": {"prompt": "a", "output_compression": 10},
    "format": {"prompt": "a", "output_format": "svg"},
    "quality": {"prompt": "a", "quality": "best"},
    "long prompt": {"prompt": "a" * 50_001},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_invalid_requests_raise_bad_request_error(client: OpenAI, wrong: str) -> None:
    body = WRONG[wrong]
    with pytest.raises(BadRequestError) as error:
        client.images.generate(**body)
    assert error.value.type == "invalid_request_error"
    assert error.value.param in body


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as error:
        client.images.generate(prompt="a", model="nonsense")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


def test_invalid_image_is_a_bad_request(client: OpenAI) -> None:
    for sent in (b"no picture", b"", png(circle_image())[:200]):
        with pytest.raises(BadRequestError) as error:
            client.images.edit(image=("a.png", sent, "image/png"), prompt="a cat")
        assert error.value.param == "image"
    picture = ("a.png", png(circle_image()), "image/png")
    with pytest.raises(BadRequestError) as error:
        client.images.edit(image=picture, mask=("m.png", png(Image.new("RGBA", (8, 8))), "image/png"), prompt="a cat")
    assert error.value.param == "mask"
    with pytest.raises(BadRequestError, match="at most 16 images"):
        client.images.edit(image=[picture] * 17, prompt="a cat")


def test_unknown_path_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as error:
        client.chat.completions.create(model="a", messages=[{"role": "user", "content": "b"}])
    assert error.value.code == "unknown_url"


def test_a_failure_is_a_server_error_that_is_not_repeated(client: OpenAI, address: str) -> None:
    """The picture to begin with goes away between the request and the run."""
    patient = client.with_options(max_retries=2)
    sent = ("a.png", png(circle_image()), "image/png")
    with httpx.Client(base_url=f"{address}/api/v1/queue/default") as queue, ThreadPoolExecutor(1) as pool:
        queue.put("/processor/pause").raise_for_status()
        before = queue.get("/status").json()["queue"]["total"]
        try:
            asking = pool.submit(patient.images.edit, image=sent, prompt="a cat", size="64x64")
            while not (pending := [i for i in queue.get("/list_all").json() if i["status"] == "pending"]):
                assert not asking.done(), asking.exception()
                time.sleep(0.05)
            name = pending[0]["session"]["graph"]["nodes"]["i2l"]["image"]["image_name"]
            httpx.delete(f"{address}/api/v1/images/i/{name}").raise_for_status()
        finally:
            queue.put("/processor/resume").raise_for_status()
        with pytest.raises(InternalServerError, match="failed"):
            asking.result(60)
        assert queue.get("/status").json()["queue"]["total"] == before + 1


def test_azure_client_generates_images(address: str) -> None:
    from openai import AzureOpenAI

    with AzureOpenAI(
        azure_endpoint=address, api_key="anything", api_version="2025-04-01-preview", max_retries=0
    ) as azure:
        answer = azure.images.generate(model="dall-e-3", prompt="a cat", size="64x64", quality="low")
        assert read_image(httpx.get(answer.data[0].url).content).size == (64, 64)


@pytest.mark.skipif(ADDRESS in os.environ, reason="once is enough")
def test_with_several_users_a_key_is_needed(tmp_path: Path) -> None:
    server = Server(tmp_path / "several").start(INVOKEAI_MULTIUSER="true")
    try:
        server.client.post(
            "/api/v1/auth/setup", json={"email": "a@example.com", "display_name": "A", "password": "Passw0rd!"}
        ).raise_for_status()
        with OpenAI(base_url=f"{server.url}/v1", api_key="nonsense", max_retries=0) as nobody:
            with pytest.raises(AuthenticationError) as error:
                nobody.models.list()
            assert error.value.code == "invalid_api_key"
            with pytest.raises(AuthenticationError):
                nobody.images.generate(prompt="a cat")
        process = subprocess.run(
            [
                sys.executable,
                "-m",
                "invokeclone",
                "user",
                "key",
                "add",
                "test",
                "--email",
                "a@example.com",
                "--root",
                str(server.root),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        with OpenAI(base_url=f"{server.url}/v1", api_key=process.stdout.strip(), max_retries=0) as somebody:
            assert [model.id for model in somebody.models.list()] == ["Embedded Tiny"]
            answer = somebody.images.generate(prompt="a cat", size="64x64", quality="low", response_format="url")
            assert httpx.get(answer.data[0].url).status_code == 200
    finally:
        server.client.close()
        server.stop()
