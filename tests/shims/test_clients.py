"""Packages of other languages and with many dependencies, against the real server: what each reads from the responses.

scripts/clients installs them into `.cache`; without them these tests are skipped.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import Server
from tests.shims.conftest import circle_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HERE = Path(__file__).parent / "clients"
CACHE = Path(__file__).parents[2] / ".cache"
PYTHON = CACHE / "clients" / "bin" / "python"
NODE_MODULES = CACHE / "npm-clients"
PYTHON_RESULTS: dict[str, Any] = {
    "langchain": [64, 64],
    "langchain, several": [[64, 64]] * 2,
    "agno DalleTools": [256, 256],
    "agno OpenAITools": [64, 64],
    "litellm gpt-image": ["b64_json"] * 2,
    "litellm dall-e": ["url"],
    "litellm own": ["b64_json"],
    "litellm azure": ["b64_json"],
    "litellm imagen": ["b64_json"],
    "litellm gemini": ["b64_json"],
    "litellm edit": ["b64_json"],
    "litellm unknown model": "NotFoundError: …The model 'nonsense' does not exist",
    "litellm wrong size": "BadRequestError: …size: must be 'auto' or WIDTHxHEIGHT in pixels, such as 1024x1024",
}
NPM_RESULTS: dict[str, Any] = {
    "genai list": ["models/Embedded Tiny"],
    "genai get": "models/gemini-2.5-flash-image",
    "genai content": ["image/png"],
    "genai stream": ["image/png"],
    "genai edit": ["image/png"],
    "genai error": "ApiError 400: …the last message of the user must have a text",
    "ai gpt-image": ["image/png"] * 2,
    "ai dall-e": ["image/png"],
    "ai edit": ["image/png"],
    "ai compatible": ["image/png"],
    "ai compatible edit": ["image/png"],
    "ai imagen": ["image/png"],
    "ai gemini": ["image/png"],
    "ai error": "AI_APICallError 404: …The model 'nonsense' does not exist",
    "openai url": "image/png",
    "openai edit": 2,
    "openai stream": ["image_generation.completed"],
}


def run(*command: object) -> dict[str, Any]:
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=500, check=False)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("[")]
    assert lines, process.stderr[-4000:]
    return dict(lines)


def check(results: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare results; an expected error has the start and the end of its important part, separated by an ellipsis."""
    assert list(results) == list(expected)
    for name, wanted in expected.items():
        if isinstance(wanted, str) and "…" in wanted:
            start, _, text = wanted.partition("…")
            assert results[name].startswith(start), (name, results[name])
            assert text in results[name], name
        else:
            assert results[name] == wanted, name


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    circle_image(64).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.skipif(not PYTHON.exists(), reason="the packages are not installed: run scripts/clients")
def test_python_packages(server: Server, picture: Path) -> None:
    check(run(PYTHON, "-W", "ignore", HERE / "clients.py", server.url, picture), PYTHON_RESULTS)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(not NODE_MODULES.is_dir(), reason="the packages are not installed: run scripts/clients")
def test_npm_packages(server: Server, picture: Path) -> None:
    check(run("node", HERE / "clients.mjs", server.url, picture, NODE_MODULES), NPM_RESULTS)
