"""Google's Python package against the real server, as a client of Gemini's API and of Vertex AI's."""

import io
from typing import Any

import pytest
from PIL import Image

from tests.server_process import Server
from tests.shims.conftest import circle_image, read_image

genai = pytest.importorskip("google.genai")
pytestmark = pytest.mark.filterwarnings("ignore")  # its methods of Imagen are deprecated; aiohttp's are too
MODEL = "gemini-2.5-flash-image"
IMAGEN = "imagen-4.0-generate-001"


@pytest.fixture(params=["v1", "v1beta"])
def client(server: Server, request: pytest.FixtureRequest) -> Any:
    """Return a client of either version: newer packages use v1, older ones v1beta."""
    options = genai.types.HttpOptions(base_url=server.url, api_version=request.param)
    with genai.Client(api_key="any", http_options=options) as client:
        yield client


@pytest.fixture
def vertex(server: Server) -> Any:
    with genai.Client(
        vertexai=True, api_key="any", http_options=genai.types.HttpOptions(base_url=server.url)
    ) as client:
        yield client


def images(answer: Any) -> list[Image.Image]:
    return [read_image(part.inline_data.data) for c in answer.candidates for part in c.content.parts]


def test_models(client: Any) -> None:
    (listed,) = client.models.list()
    assert (listed.name, listed.display_name) == ("models/Embedded Tiny", "Embedded Tiny")
    assert listed.supported_actions == ["predict", "generateContent", "streamGenerateContent"]
    assert client.models.get(model="Embedded Tiny").version == listed.version
    for alias in (MODEL, IMAGEN):
        got = client.models.get(model=alias)
        assert (got.name, got.version) == (f"models/{alias}", listed.version)
    with pytest.raises(genai.errors.ClientError) as error:
        client.models.get(model="nonsense")
    assert (error.value.code, error.value.status) == (404, "NOT_FOUND")


def test_content_and_edits(client: Any) -> None:
    types = genai.types
    config = types.GenerateContentConfig(
        response_modalities=["TEXT", "IMAGE"],
        temperature=1.0,
        system_instruction="be brief",
        seed=3,
        image_config=types.ImageConfig(aspect_ratio="16:9", image_size="1K"),
    )
    (image,) = images(client.models.generate_content(model=MODEL, contents="a cat", config=config))
    assert image.size == (168, 96)
    base = Image.new("RGB", (160, 96), (250, 235, 40))
    (edited,) = images(client.models.generate_content(model=MODEL, contents=["a yellow background", base]))
    assert edited.size == (160, 96)


def test_stream(client: Any) -> None:
    config = genai.types.GenerateContentConfig(candidate_count=2, seed=3)
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="a cat", config=config))
    assert [len(images(chunk)) for chunk in chunks] == [1, 1]
    assert chunks[-1].usage_metadata.candidates_token_count == 128


async def test_asynchronous_stream(server: Server) -> None:
    client = genai.Client(api_key="any", http_options=genai.types.HttpOptions(base_url=server.url))
    stream = await client.aio.models.generate_content_stream(model=MODEL, contents="a cat")
    assert [len(images(chunk)) async for chunk in stream] == [1]
    await client.aio.aclose()
    client.close()


def test_chat_edits_the_image_before(client: Any) -> None:
    chat = client.chats.create(model=MODEL)
    first = io.BytesIO()
    circle_image(96).save(first, "PNG")
    part = genai.types.Part.from_bytes(data=first.getvalue(), mime_type="image/png")
    assert images(chat.send_message(["a red circle", part]))[0].size == (96, 96)
    assert images(chat.send_message("a blue circle"))[0].size == (96, 96)


def test_images_of_vertex_ai(vertex: Any) -> None:
    config = genai.types.GenerateImagesConfig(
        number_of_images=2,
        aspect_ratio="9:16",
        negative_prompt="red",
        person_generation="allow_adult",
        safety_filter_level="BLOCK_LOW_AND_ABOVE",
        include_rai_reason=True,
        language="en",
        output_mime_type="image/jpeg",
        output_compression_quality=50,
    )
    made = vertex.models.generate_images(model=IMAGEN, prompt="a cat", config=config).generated_images
    assert [read_image(entry.image.image_bytes).format for entry in made] == ["JPEG"] * 2
    assert images(vertex.models.generate_content(model=MODEL, contents="a cat"))[0].size == (128, 128)
    for options in ({"prompt": "a", "config": {"number_of_images": 99}}, {"prompt": ""}):
        with pytest.raises(genai.errors.ClientError) as error:
            vertex.models.generate_images(model=IMAGEN, **options)
        assert (error.value.code, error.value.status) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "options",
    [
        {"contents": ""},
        {"contents": "a", "config": {"candidate_count": 99}},
        {"contents": "a" * 50_001},
        {"contents": "a", "config": {"image_config": {"aspect_ratio": "7:1"}}},
    ],
)
def test_invalid_requests_raise_client_errors(client: Any, options: dict[str, Any]) -> None:
    for method in (client.models.generate_content, lambda **all: list(client.models.generate_content_stream(**all))):
        with pytest.raises(genai.errors.ClientError) as error:
            method(model=MODEL, **options)
        assert (error.value.code, error.value.status) == (400, "INVALID_ARGUMENT")
