"""What the page offers beside the prompt: styles, LoRAs, masks, variations, the queue's list, boards, search, models, history."""

import io
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Page, expect

from invokeclone.graph.recipes import recipes
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry
from invokeclone.models.records import store
from invokeclone.queue.generation.capabilities import ModelCapabilities, describe
from tests.browser.conftest import MODEL, ON_DISK, offer_model
from tests.browser.painter import Painter

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARKUP = '<img src="x" onerror="alert(1)">'
LORA = {
    "key": "4f2b7c1e-0000-4000-8000-000000000002",
    "hash": "blake3:01",
    "name": f"Purple {MARKUP}",
    "base": "sd-1",
    "type": "lora",
    "trigger_phrases": ["purple figure"],
    "default_settings": {"weight": 0.75},
}
OTHER_LORA = LORA | {
    "key": "4f2b7c1e-0000-4000-8000-000000000003",
    "hash": "blake3:02",
    "base": "sdxl",
    "name": "Large",
}
LORA_FILE = {
    name: value for name, value in ON_DISK.items() if name not in ("prediction_type", "variant", "repo_variant")
}


async def test_a_run_with_style_lora_and_aspect_is_remembered_and_reused(
    blank: Page, app: Application, url: str, painter: Painter
) -> None:
    page = blank
    async with app.services.get(Resources).database.write() as connection:
        for record in (LORA, OTHER_LORA):
            await store.add(connection, registry.parse(record | LORA_FILE | {"path": record["key"]}))
    await offer_model(page)
    await page.goto(url)
    await page.get_by_text("LoRAs").click()
    await page.locator("#lora-add").select_option(label=str(LORA["name"]))
    await expect(page.locator("#lora-add option")).to_have_count(1)
    weight = page.get_by_label(f"Weight of {LORA['name']}")
    await expect(weight).to_have_value("0.75")
    await weight.fill("0.5")
    await page.get_by_label("Prompt", exact=True).fill("a red circle")
    await page.get_by_role("button", name="purple figure").click()

    await page.get_by_role("button", name="New style").click()
    await page.locator("#ask-name").fill(f"Mine {MARKUP}")
    await page.locator("#ask-positive_prompt").fill("oil painting of {prompt}")
    await page.locator("#ask-negative_prompt").fill("photo")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#style-hint")).to_have_text("oil painting of {prompt}")
    await page.get_by_role("button", name="16:9").click()
    await expect(page.locator("#width")).to_have_value("168")

    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator(".tile")).to_have_count(1)
    nodes = painter.items[0]["nodes"]
    assert nodes["positive_prompt"]["value"] == "oil painting of a red circle, purple figure"
    assert nodes["neg_cond"]["prompt"] == "photo"
    assert (nodes["core_metadata"]["width"], nodes["core_metadata"]["height"]) == (168, 96)
    loras = nodes["core_metadata"]["loras"]
    assert [(entry["model"]["key"], entry["weight"]) for entry in loras] == [(LORA["key"], 0.5)]

    await page.get_by_role("button", name="History").click()
    await page.locator("#history-list .text").click()
    await expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red circle, purple figure")
    await page.get_by_role("button", name="Delete the style").click()
    await page.locator("#ask-submit").click()
    await expect(page.locator("#style")).to_have_value("")
    await page.reload()
    await expect(weight).to_have_value("0.5")
    assert await page.locator('img[src="x"]').count() == 0


@pytest.mark.parametrize("image_count", [1])
async def test_an_image_is_repainted_varied_and_upscaled(page: Page, painter: Painter) -> None:
    await page.locator(".tile").click()
    await page.get_by_role("button", name="Paint a mask").click()
    mask = page.locator("#mask-canvas")
    await expect(mask).to_be_focused()
    for key in ("Space", "Shift+ArrowRight", "Shift+ArrowRight", "Space"):
        await page.keyboard.press(key)
    async with page.expect_response("**/images/upload*") as upload:
        await page.get_by_role("button", name="Done").click()
    await expect(page.get_by_role("button", name="Edit the mask")).to_be_visible()
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator(".tile")).to_have_count(2)
    nodes = painter.items[0]["nodes"]
    name = (await (await upload.value).json())["image_name"]
    assert name in [
        node.get("mask", {}).get("image_name") for node in nodes.values() if isinstance(node.get("mask"), dict)
    ] + [node["image"]["image_name"] for node in nodes.values() if isinstance(node.get("image"), dict)]
    file = await (await page.request.get(f"{page.url}api/v1/images/i/{name}/full")).body()
    image = Image.open(io.BytesIO(file)).convert("L")
    assert image.size == (64, 64)
    assert image.getpixel((40, 32)) == 0
    assert image.getpixel((5, 5)) == 255

    await page.locator(".tile").first.click()
    await expect(page.locator("#metadata")).to_contain_text("Tiny shapes")
    await page.get_by_label("How much changes").select_option("0.35")
    await page.get_by_role("button", name="Vary").click()
    await page.get_by_role("button", name="Upscale").click()
    await page.keyboard.press("Escape")
    await expect(page.locator(".tile")).to_have_count(4)
    # The two requests are sent one after the other, and may arrive in either order.
    further = [graph["nodes"] for graph in painter.items[1:]]
    varied, upscaled = sorted(further, key=lambda nodes: nodes.get("resize", {}).get("width", 0))
    assert varied["denoise_latents"]["denoising_start"] == pytest.approx(0.65)
    assert (varied["resize"]["width"] if "resize" in varied else 128) == 128
    assert upscaled["resize"]["width"] == 256


async def test_the_queue_is_listed_reordered_and_canceled(page: Page, painter: Painter) -> None:
    painter.go.clear()
    for prompt in ("first", "second", f"third {MARKUP}"):
        await page.get_by_label("Prompt", exact=True).fill(prompt)
        await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator("#queue-text")).to_have_text("1 running, 2 waiting")
    await page.locator("#queue").click()
    waiting = page.locator('#queue-items [data-status="pending"] span')
    await expect(waiting).to_have_text(["second", f"third {MARKUP}"])
    await page.get_by_role("button", name="Run next: third").click()
    await expect(waiting).to_have_text([f"third {MARKUP}", "second"])
    rows = page.locator('#queue-items [data-status="pending"]')
    await rows.nth(0).drag_to(rows.nth(1))
    await expect(waiting).to_have_text(["second", f"third {MARKUP}"])
    await page.get_by_role("button", name="Cancel: second").press("Alt+ArrowDown")
    await expect(waiting).to_have_text([f"third {MARKUP}", "second"])
    await expect(rows.nth(1).get_by_role("button").first).to_be_focused()
    await page.get_by_role("button", name="Cancel: second").click()
    await expect(waiting).to_have_text([f"third {MARKUP}"])
    painter.go.set()
    await expect(page.locator('#queue-items [data-status="completed"]')).to_have_count(2)
    await expect(page.locator('#queue-items [data-status="canceled"]')).to_contain_text("second")
    assert [graph["nodes"]["positive_prompt"]["value"] for graph in painter.items] == ["first", f"third {MARKUP}"]


@pytest.mark.parametrize("image_count", [2])
async def test_boards_and_search_narrow_the_gallery(page: Page, painter: Painter) -> None:
    await page.get_by_role("button", name="New board").click()
    await page.locator("#ask-name").fill(f"Circles {MARKUP}")
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator("#empty h3")).to_have_text("No images on this board")
    await page.get_by_label("Prompt", exact=True).fill("a red circle")
    await page.get_by_role("button", name="Invoke").click()
    await expect(page.locator(".tile")).to_have_count(1)
    assert painter.items[0]["nodes"]["canvas_output"]["board"]["board_id"]
    await page.locator("#board").select_option("")
    await expect(page.locator(".tile")).to_have_count(3)
    await page.get_by_label("Search images").fill("red circle")
    await expect(page.locator(".tile")).to_have_count(1)
    await page.get_by_label("Search images").fill("")
    await expect(page.locator(".tile")).to_have_count(3)
    await page.locator(".tile").last.click()
    board = await page.locator("#board option").last.get_attribute("value")
    await page.get_by_label("Board of the image").select_option(board)
    await expect(page.locator("#board option").last).to_have_text(f"Circles {MARKUP} (2)")
    await page.keyboard.press("Escape")
    await page.locator("#board").select_option(board)
    await expect(page.locator(".tile")).to_have_count(2)
    await page.get_by_role("button", name="Delete the board").click()
    await page.locator("#ask-submit").click()
    await expect(page.locator(".tile")).to_have_count(3)


async def test_models_are_installed_and_deleted(page: Page, tmp_path: Any) -> None:
    weights = tmp_path / "no model.safetensors"
    weights.write_bytes(b"no weights")
    await page.get_by_role("button", name="Models").click()
    installed = page.locator("#models-list li")
    await expect(installed.filter(has_text="Tiny shapes")).to_contain_text("sd-1 · main · diffusers · 1 B")
    await page.locator("#install-source").fill(str(weights))
    await page.get_by_role("button", name="Install", exact=True).click()
    await expect(page.locator('#installs-list [data-status="error"]')).to_have_count(1)
    await page.get_by_role("button", name="Remove ended").click()
    await expect(page.locator("#installs")).to_be_hidden()
    await page.get_by_role("button", name="Starter models").click()
    await page.get_by_label("Search models").fill("flux.1 schnell")
    await expect(installed.first).to_contain_text("24 GB")
    await expect(installed.first).to_contain_text("Also installs")


def model_of(base: str, **fields: Any) -> ModelCapabilities:
    config = registry.parse(MODEL | ON_DISK).model_copy(
        update={"base": base, "key": base, "name": base, "default_settings": None, **fields}
    )
    return describe(config, Limits())


async def test_only_what_the_chosen_model_supports_is_shown(blank: Page, url: str) -> None:
    """Each family's capabilities, and those of the FLUX.1 model that only repaints."""
    page = blank
    models = [*(model_of(base) for base in sorted(recipes())), model_of("flux", key="fill", variant="dev_fill")]
    described = [model.model_dump(mode="json") for model in models]
    vae = {"key": "ae", "name": "ae", "base": "flux", "type": "vae"}
    await page.route("**/api/v2/models/?*", lambda route: route.fulfill(json={"models": [vae]}))
    await page.route("**/capabilities", lambda route: route.fulfill(json={"models": described}))
    await page.goto(url)
    await page.locator("#model").select_option("flux")
    await expect(page.locator("#vae option[value=ae]")).to_be_attached()
    for model in models:
        await page.locator("#model").select_option(model.key)
        shown = await page.evaluate(
            "Object.fromEntries(['loras', 'source', 'negative-field', 'cfg-field', 'scheduler-field', 'true-cfg-field', 'vae-field']"
            ".map((id) => [id, !document.getElementById(id).hidden]))"
        )
        features = model.features
        assert shown == {
            "loras": features["lora"],
            "source": features["image_to_image"] or features["inpaint"],
            "negative-field": model.guidance == "cfg",
            "cfg-field": model.guidance != "none",
            "scheduler-field": len(model.schedulers) > 1,
            "true-cfg-field": model.guidance == "distilled",
            "vae-field": model.vae_base == "flux",
        }, model.key
        for name in ("hires_fix", "seamless", "clip_skip"):
            assert await page.locator(f'[data-feature="{name}"]').evaluate("(field) => !field.hidden") == features[name]
        options = await page.locator("#scheduler option").evaluate_all("(options) => options.map(({ value }) => value)")
        assert options == model.schedulers
        await expect(page.locator("#cfg-name")).to_have_text(
            "Guidance" if model.guidance == "distilled" else "CFG scale"
        )
    await expect(page.locator("#source-hint")).to_contain_text("choose one")
