"""axe-core, which `scripts/test` fetches into `.cache/axe`."""

from pathlib import Path

from playwright.async_api import Page

AXE = Path(__file__).parents[2] / ".cache" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
}"""


async def check(page: Page, where: str) -> None:
    """Fail for any finding of axe, and for content that is wider than the screen."""
    await page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished.catch(() => {})))")
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text())
    assert await page.evaluate(RUN) == [], where
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, where
