"""axe-core finds nothing to complain about, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

if TYPE_CHECKING:
    from conftest import Server  # type: ignore[import-not-found]
    from playwright.sync_api import Page

Open = Callable[..., "Page"]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


def problems(page: Page) -> list[str]:
    """What axe-core finds on the page, shadow roots included."""
    found = Axe().run(page, options={"runOnly": RULES})
    return [f"{v['id']}: {v['help']}: {[n['target'] for n in v['nodes']]}" for v in found.response["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state(server: Server, open_page: Open, scheme: str) -> None:
    page = open_page(server.url, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#documents li").first).to_be_visible()
    assert problems(page) == []
    widget = page.locator("chatgglm-widget")
    for question in ("新员工的试用期是多长时间？", "火星上有多少座城市？"):
        widget.locator("textarea").fill(question)
        widget.locator("textarea").press("Enter")
        expect(widget.locator(".assistant").last.locator(".tools")).to_be_visible(timeout=60_000)
    assert problems(page) == []
    widget.locator("button.chip").first.click()
    expect(widget.locator(".context[aria-busy=false]")).to_be_visible()
    assert problems(page) == []
    href = widget.get_by_role("link", name="打开全文").get_attribute("href")
    page.keyboard.press("Escape")
    widget.get_by_role("button", name="历史对话").click()
    assert problems(page) == []
    page.keyboard.press("Escape")
    page.locator("#try").click()
    assert problems(page) == []
    page.goto(href or "")
    expect(page.locator("mark")).to_be_visible()
    assert problems(page) == []
