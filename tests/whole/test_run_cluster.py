"""`scripts/run_cluster.py`: all parts of a larger installation on one machine, by one command."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from tests.server_process import PATIENCE, free_port

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_cluster.py"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    port = free_port()
    with (tmp_path / "errors.log").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--port", str(port), "--workers", "2"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "run with 2 workers" in line, (tmp_path / "errors.log").read_text()
        folder = line.partition("logs are in ")[2].partition(". ")[0]
        yield process, folder, [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_image_of_one_server_is_served_by_the_other_and_nothing_stays(
    installation: tuple[subprocess.Popen[str], str, list[str]],
) -> None:
    process, folder, (first, second) = installation
    parts = psutil.Process(process.pid).children(recursive=True)
    database = [
        part for part in psutil.process_iter(["cmdline"]) if f"{folder}/postgresql" in (part.info["cmdline"] or [])
    ]
    assert database
    request = {"prompt": "a red circle on a blue background", "steps": 4, "width": 128, "height": 128}
    response = httpx.post(f"{second}/sdapi/v1/txt2img", json=request, timeout=PATIENCE)
    assert response.status_code == 200, response.text
    (record,) = httpx.get(f"{first}/api/v1/images/").json()["items"]
    data = httpx.get(f"{first}/api/v1/images/i/{record['image_name']}/full").content
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (128, 128)
    assert len(httpx.get(f"{first}/api/v1/workers/").json()) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    _, remaining = psutil.wait_procs([*parts, *database], timeout=PATIENCE)
    assert not remaining
