"""Steps of the official web UI's Generate tab that every family has, and what the UI enqueued."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Request, expect
from playwright.async_api import TimeoutError as BrowserTimeout

from tests.official_ui.conftest import UI
from tests.official_ui.sdxl import number, wait_until_completed

WIDTH, HEIGHT, STEPS = 128, 96, 4


class Run:
    """An item that the UI has enqueued, completed, and the graph that it sent."""

    def __init__(self, ui: UI, item: dict[str, Any], graph: dict[str, Any], output: str) -> None:
        self.item = item
        self.graph = graph
        self.nodes = {node["type"]: node for node in graph["nodes"].values()}
        self.image = ui.server.output_image(item, output)
        self.metadata = ui.server.output_metadata(item, output)


async def choose_model(ui: UI, name: str) -> None:
    await ui.page.get_by_role("button", name=re.compile("^(Tiny|Embedded) ")).first.click()
    await ui.text(name, exact=True).last.click()
    await expect(ui.page.get_by_role("button", name=name, exact=True).first).to_be_visible()


async def choose(ui: UI, label: str, option: str) -> None:
    """Choose an entry of a list with a label."""
    group = ui.page.get_by_role("group").filter(has=ui.page.get_by_text(label, exact=True)).last
    entry = ui.page.get_by_role("option", name=option, exact=True)
    for wait_ms in (5_000, 10_000, None):  # the form is drawn anew after a change of the model, which closes the list
        await group.get_by_role("combobox").click()
        try:
            await entry.click(timeout=wait_ms)
            break
        except BrowserTimeout:
            if wait_ms is None:
                raise
            await ui.page.keyboard.press("Escape")
    await expect(group).to_contain_text(option)


async def set_numbers(ui: UI, **values: float) -> None:
    for name, value in values.items():
        await number(ui, name).fill(str(value))
        await number(ui, name).press("Tab")
        await expect(number(ui, name)).to_have_value(str(value))


async def set_size_and_steps(ui: UI) -> None:
    await ui.text("Advanced Options").first.click()
    await set_numbers(ui, Width=WIDTH, Height=HEIGHT, Steps=STEPS)


async def upload(ui: UI, button: Locator, path: Path) -> None:
    """Give a file to a button that asks for one."""
    async with ui.page.expect_file_chooser() as chooser:
        await button.click()
    await (await chooser.value).set_files(path)


async def add_reference_image(ui: UI, path: Path) -> None:
    await upload(ui, ui.button("Reference Image").first, path)
    await expect(ui.text("Reference Image #1")).to_be_visible()


async def invoke(ui: UI, prompt: str, output: str = "canvas_output") -> Run:
    """Generate with what the UI has now; `output` begins the id of the node that makes the image."""
    await ui.prompt(prompt)

    def enqueues(request: Request) -> bool:
        return request.method == "POST" and request.url.endswith("/enqueue_batch")

    await expect(ui.button(re.compile("^Invoke")).first).to_be_enabled()
    async with ui.page.expect_request(enqueues) as sent:
        await ui.button(re.compile("^Invoke")).first.click()
    request = await sent.value
    answer = await request.response()
    assert answer is not None
    (item_id,) = (await answer.json())["item_ids"]
    item = wait_until_completed(ui, item_id)
    return Run(ui, item, json.loads(request.post_data or "")["batch"]["graph"], output)
