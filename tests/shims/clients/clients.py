"""Asks the server whose address is the argument for images, as each package does, and prints a line of JSON per request.

Runs in `.cache/clients`, where scripts/clients installs the packages; see tests/shims/test_clients.py.
"""

import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

ADDRESS, PNG = sys.argv[1], sys.argv[2]
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", OPENAI_API_KEY="any", OPENAI_BASE_URL=f"{ADDRESS}/v1")

import httpx  # noqa: E402
import litellm  # noqa: E402
from agno.tools.dalle import DalleTools  # noqa: E402
from agno.tools.openai import OpenAITools  # noqa: E402
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper  # noqa: E402
from PIL import Image  # noqa: E402

litellm.suppress_debug_info = True
LITELLM = {"api_base": f"{ADDRESS}/v1", "api_key": "any", "prompt": "a cat", "size": "64x64"}
GEMINI = {"api_base": f"{ADDRESS}/v1beta", "api_key": "any", "prompt": "a cat"}
AZURE = {"api_base": ADDRESS, "api_key": "any", "api_version": "2025-04-01-preview", "prompt": "a cat", "size": "64x64"}


def size_of(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def linked(url: str) -> tuple[int, int]:
    return size_of(httpx.get(url).raise_for_status().content)


def returned(answer: Any) -> list[str]:
    """Return which field each image is in."""
    return ["url" if item.url else "b64_json" for item in answer.data]


def picture() -> io.BytesIO:
    with open(PNG, "rb") as file:
        return io.BytesIO(file.read())


REQUESTS: dict[str, Callable[[], Any]] = {
    "langchain": lambda: linked(DallEAPIWrapper(size="64x64").run("a cat")),
    "langchain, several": lambda: [
        linked(url) for url in DallEAPIWrapper(size="64x64", model="dall-e-3", n=2).run("a cat").split("\n")
    ],
    "agno DalleTools": lambda: linked(DalleTools(size="256x256").create_image("a cat").images[0].url),
    "agno OpenAITools": lambda: size_of(
        OpenAITools(api_key="any", image_size="64x64").generate_image("a cat").images[0].content
    ),
    "litellm gpt-image": lambda: returned(litellm.image_generation(model="openai/gpt-image-1", n=2, **LITELLM)),
    "litellm dall-e": lambda: returned(litellm.image_generation(model="openai/dall-e-3", **LITELLM)),
    "litellm own": lambda: returned(litellm.image_generation(model="openai/Embedded Tiny", **LITELLM)),
    "litellm azure": lambda: returned(litellm.image_generation(model="azure/gpt-image-1", **AZURE)),
    "litellm imagen": lambda: returned(litellm.image_generation(model="gemini/imagen-4.0-generate-001", **GEMINI)),
    "litellm gemini": lambda: returned(litellm.image_generation(model="gemini/gemini-2.5-flash-image", **GEMINI)),
    "litellm edit": lambda: returned(
        litellm.image_edit(image=[picture(), picture()], model="openai/gpt-image-1", **LITELLM)
    ),
    "litellm unknown model": lambda: litellm.image_generation(model="openai/nonsense", **LITELLM),
    "litellm wrong size": lambda: litellm.image_generation(model="openai/gpt-image-1", **LITELLM | {"size": "x"}),
}

for name, ask in REQUESTS.items():
    try:
        result: Any = ask()
    except Exception as error:  # noqa: BLE001
        result = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps([name, result]) + "\n")
    sys.stdout.flush()
