"""Create docs/screenshot.webp: the page of a temporary server, with images of the embedded model.

Usage: python scripts/draw_screenshot.py. It needs Chromium (`CHROMIUM`, default /usr/bin/chromium) and the development
environment.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

TARGET = Path(__file__).parent.parent / "docs" / "screenshot.webp"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PORT = 9318
PATIENCE_S = 120
LARGEST = 150_000
"""Maximum size of the file in bytes."""
PROMPTS = (
    "a blue star on a yellow background",
    "a green square on a white background",
    "a red heart on a white background",
    "a yellow circle on a blue background",
    "an orange triangle on a green background",
    "a purple square on a yellow background",
    "a white star on a red background",
    "a red circle on a blue background",
)


@contextmanager
def serve_page(root: Path) -> Iterator[str]:
    """Run a server on a folder and yield its address."""
    command = [sys.executable, "-m", "invokeclone", "serve", "--root", str(root), "--port", str(PORT)]
    environment = os.environ | {"INVOKEAI_LOG_LEVEL": "warning"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().rsplit(" ", 1)[-1].strip()
    finally:
        process.terminate()
        process.wait()


def make_images(address: str) -> None:
    """Generate an image of each prompt but the last."""
    api = httpx.Client(base_url=address, timeout=PATIENCE_S)
    for seed, prompt in enumerate(PROMPTS[:-1]):
        body = {"prompt": prompt, "seed": seed, "width": 256, "height": 256}
        answer = api.post("/api/v1/queue/default/enqueue_prompt", json=body).raise_for_status()
        item = f"/api/v1/queue/default/i/{answer.json()['item_ids'][0]}"
        while api.get(item).raise_for_status().json()["status"] != "completed":
            time.sleep(0.1)


def use(page: Page, address: str) -> bytes:
    """Generate the last image through the page and open it; return the screen as PNG."""
    page.goto(address)
    page.wait_for_selector('#link[data-state="online"]')
    page.get_by_label("Prompt", exact=True).fill(PROMPTS[-1])
    page.locator("#width").fill("256")
    page.locator("#height").fill("256")
    page.get_by_role("button", name="Invoke").click()
    expect(page.locator(".tile")).to_have_count(len(PROMPTS), timeout=PATIENCE_S * 1000)
    page.wait_for_timeout(1000)
    return page.screenshot()


def main() -> None:
    """Create the screenshot."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_page(Path(folder) / "root") as address,
        sync_playwright() as playwright,
    ):
        make_images(address)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 740}, color_scheme="dark")
        screen = use(page, address)
        browser.close()
    Image.open(io.BytesIO(screen)).save(TARGET, quality=80, method=6)
    size = TARGET.stat().st_size
    print(f"{TARGET}: {size} bytes")
    if size > LARGEST:
        raise SystemExit(f"larger than {LARGEST}: reduce the quality")


if __name__ == "__main__":
    main()
