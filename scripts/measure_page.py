"""Measure how soon the page of a temporary server is ready, and how large its files are.

Usage: python scripts/measure_page.py [--runs 15] [--images 60]. It needs Chromium (`CHROMIUM`, default /usr/bin/chromium)
and the development environment. Ready means: the model's settings are in the form, images can be generated, and the
first images of the gallery are listed; the time counts from the navigation. Each run has an empty cache. The server has
generated an image before, so that its worker, which occupies a core for seconds while it loads its libraries, is idle.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from invokeclone.server import page as built_in
from scripts.draw_screenshot import CHROMIUM, serve_page

WATCH = """
window.ready = new Promise((resolve) => {
    const observer = new MutationObserver(() => {
        const isUsable = document.getElementById("invoke")?.disabled === false && document.getElementById("model").value;
        if (!isUsable || document.getElementsByClassName("tile").length < EXPECTED) return;
        observer.disconnect();
        resolve(performance.now());
    });
    observer.observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["disabled"] });
});
"""
WARM_UP = {"prompt": "a red circle on a blue background", "steps": 1, "width": 64, "height": 64}
QUEUE = "/api/v1/queue/default"


def upload_images(address: str, count: int) -> None:
    """Upload images that the gallery lists."""
    api = httpx.Client(base_url=address, timeout=60)
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (128, 128), (number * 4 % 255, 90, 160)).save(file, "PNG")
        query: dict[str, str | bool] = {"image_category": "general", "is_intermediate": False}
        api.post("/api/v1/images/upload", params=query, files={"file": ("a.png", file.getvalue(), "image/png")})


def generate_image(address: str) -> None:
    """Generate an image and wait for it."""
    api = httpx.Client(base_url=address, timeout=60)
    (item,) = api.post(f"{QUEUE}/enqueue_prompt", json=WARM_UP).raise_for_status().json()["item_ids"]
    while api.get(f"{QUEUE}/i/{item}").raise_for_status().json()["status"] != "completed":
        time.sleep(0.1)


def time_of_one(browser: Browser, address: str, images: int) -> float:
    """Return the time in milliseconds until the page is ready."""
    page = browser.new_context(viewport={"width": 1500, "height": 900}).new_page()
    page.add_init_script(WATCH.replace("EXPECTED", str(images)))
    page.goto(address)
    ready = float(page.evaluate("window.ready"))
    page.context.close()
    return ready


def main() -> None:
    """Print the median and the extremes of the times, and the compressed size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--images", type=int, default=60)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_page(Path(folder) / "root") as address,
        sync_playwright() as playwright,
    ):
        upload_images(address, options.images)
        generate_image(address)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        time_of_one(browser, address, options.images)
        times = sorted(time_of_one(browser, address, options.images) for _ in range(options.runs))
        browser.close()
    files, _ = built_in.load(built_in.POLICY, multiuser=False)
    size = sum(len(file.zipped or file.plain) for file in files.values())
    load = os.getloadavg()[0]
    print(f"ready after {statistics.median(times):.0f} ms ({times[0]:.0f} to {times[-1]:.0f}, {options.runs} runs)")
    print(f"{len(files)} files, {size} bytes compressed; load of the machine {load:.1f}")


if __name__ == "__main__":
    main()
