"""The widget on the home page: question, streamed answer, quote, refusal, thumbs, memory."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from conftest import Server  # type: ignore[import-not-found]
    from playwright.sync_api import Locator, Page

Open = Callable[..., "Page"]
QUESTION = "新员工的试用期是多长时间？"
UNKNOWN = "火星上有多少座城市？"


def get(url: str) -> Any:
    """A JSON document of the server, past the browser."""
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def ask(widget: Locator, question: str) -> Locator:
    """Asks as a person does, waits for the end, and gives the reply."""
    box = widget.locator("textarea")
    box.fill(question)
    box.press("Enter")
    reply = widget.locator(".assistant").last
    expect(reply.locator(".tools")).to_be_visible(timeout=60_000)
    return reply


def floating(page: Page) -> Locator:
    """The widget as a button in the corner, opened."""
    page.locator("#try").click()
    widget = page.locator("chatgglm-widget[mode=floating]")
    expect(widget.get_by_role("dialog")).to_be_visible()
    return widget


def test_answer_with_a_quote_that_opens_and_is_the_stored_text(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    widget = page.locator("chatgglm-widget")
    with page.expect_response(lambda r: r.url.endswith("/v1/ask")) as asked:
        reply = ask(widget, QUESTION)
    assert asked.value.headers["content-type"].startswith("text/event-stream")
    expect(reply.locator(".markdown")).to_contain_text("三个月")

    reply.locator("button.chip").first.click()
    sheet = widget.get_by_role("dialog")
    expect(sheet.get_by_role("heading")).to_contain_text("员工手册")
    expect(sheet.locator(".path")).to_contain_text("员工手册.md")
    expect(sheet.locator(".context")).to_contain_text("主管可以提前结束试用期")  # the text around the quote
    quote = sheet.locator("mark").inner_text()
    assert "三个月" in quote

    with page.context.expect_page() as opened:
        sheet.get_by_role("link", name="打开全文").click()
    viewer = opened.value
    expect(viewer.locator("mark")).to_have_text(quote)
    expect(viewer.locator("mark")).to_be_in_viewport()
    expect(viewer.get_by_role("heading", level=1)).to_contain_text("员工手册")


def test_refusal_is_said_plainly_with_the_nearest_passages(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    widget = page.locator("chatgglm-widget")
    reply = ask(widget, UNKNOWN)
    expect(reply.locator(".refusal .verdict")).to_contain_text("没有找到")
    assert reply.locator("button.chip").count() == 0
    nearest = reply.locator("button.passage")
    assert nearest.count() >= 1
    nearest.first.click()
    expect(widget.get_by_role("dialog").locator("mark")).not_to_be_empty()


def test_small_talk_is_answered_without_sources(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    reply = ask(page.locator("chatgglm-widget"), "你好")
    expect(reply.locator(".markdown")).not_to_be_empty()
    expect(reply.locator(".sources, .refusal")).to_have_count(0)


def test_thumb_reaches_the_server_and_can_be_taken_back(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    with page.expect_response(lambda r: r.url.endswith("/v1/conversations")) as created:
        reply = ask(page.locator("chatgglm-widget"), QUESTION)
    messages = f"{server.url}/v1/conversations/{created.value.json()['id']}/messages"
    thumb = reply.get_by_role("button", name="有帮助", exact=True)
    with page.expect_response(lambda r: "/v1/feedback" in r.url):
        thumb.click()
    expect(thumb).to_have_attribute("aria-pressed", "true")
    assert [m["feedback"]["rating"] for m in get(messages)["data"] if m["feedback"]] == ["up"]
    with page.expect_response(lambda r: "/v1/feedback" in r.url):
        thumb.click()
    expect(thumb).to_have_attribute("aria-pressed", "false")
    assert not any(m["feedback"] for m in get(messages)["data"])


def test_conversation_survives_a_reload_and_goes_on_on_the_server(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    widget = page.locator("chatgglm-widget")
    with page.expect_response(lambda r: r.url.endswith("/v1/conversations")) as created:
        ask(widget, QUESTION)
    conversation = created.value.json()["id"]
    page.reload()
    expect(widget.locator(".user p")).to_have_text(QUESTION)
    expect(widget.locator(".assistant .markdown")).to_contain_text("三个月")
    ask(widget, "那年假呢？")
    stored = get(f"{server.url}/v1/conversations/{conversation}/messages")["data"]
    assert [m["content"] for m in stored if m["role"] == "user"] == [QUESTION, "那年假呢？"]


def test_new_conversation_and_the_way_back_through_the_history(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    widget = page.locator("chatgglm-widget")
    ask(widget, QUESTION)
    widget.get_by_role("button", name="新对话").click()
    expect(widget.locator(".message")).to_have_count(0)
    ask(widget, "你好")
    widget.get_by_role("button", name="历史对话").click()
    drawer = widget.get_by_role("dialog")
    expect(drawer.locator(".past")).to_have_count(2)
    drawer.get_by_role("button", name=QUESTION).first.click()
    expect(widget.locator(".assistant .markdown")).to_contain_text("三个月")
    widget.get_by_role("button", name="历史对话").click()
    drawer.get_by_role("button", name=f"删除：{QUESTION}").click()
    expect(drawer.locator(".past")).to_have_count(1)


def test_follow_up_after_the_server_forgot_the_conversation(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    page.expected.append("404")  # type: ignore[attr-defined]
    widget = page.locator("chatgglm-widget")
    with page.expect_response(lambda r: r.url.endswith("/v1/conversations")) as created:
        ask(widget, QUESTION)
    gone = urllib.request.Request(f"{server.url}/v1/conversations/{created.value.json()['id']}", method="DELETE")
    urllib.request.urlopen(gone, timeout=30).close()
    reply = ask(widget, QUESTION)
    expect(reply.locator(".markdown")).to_contain_text("三个月")


def test_network_failure_says_what_to_do_and_retry_works(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    page.expected.append("ERR_INTERNET_DISCONNECTED")  # type: ignore[attr-defined]
    widget = page.locator("chatgglm-widget")
    page.context.set_offline(True)
    reply = ask(widget, QUESTION)
    expect(reply.locator(".problem")).to_contain_text("连不上服务器")
    page.context.set_offline(False)
    reply.get_by_role("button", name="重试").click()
    expect(widget.locator(".assistant .markdown")).to_contain_text("三个月", timeout=60_000)
    expect(widget.locator(".user")).to_have_count(1)


def test_enter_sends_but_not_while_an_input_method_composes(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    widget = page.locator("chatgglm-widget")
    box = widget.locator("textarea")
    box.focus()
    ime = page.context.new_cdp_session(page)
    ime.send("Input.imeSetComposition", {"text": "nihao", "selectionStart": 5, "selectionEnd": 5})
    box.evaluate(  # what Chromium reports for the Enter that picks a candidate
        """e => e.dispatchEvent(new KeyboardEvent('keydown', {
            key: 'Enter', isComposing: true, bubbles: true, cancelable: true,
        }))"""
    )
    ime.send("Input.insertText", {"text": "你好"})
    expect(box).to_have_value("你好")
    expect(widget.locator(".message")).to_have_count(0)
    box.press("Shift+Enter")
    expect(widget.locator(".message")).to_have_count(0)
    box.press("Enter")
    expect(widget.locator(".user")).to_have_count(1)


def test_keyboard_alone_is_enough(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    widget = floating(page)
    focused = "() => document.activeElement.shadowRoot?.activeElement?.outerHTML ?? ''"
    assert page.evaluate(focused).startswith("<textarea")  # opening puts the cursor there
    reply = ask(widget, QUESTION)

    stops = set()
    for _ in range(40):  # all the way round, and never out of the panel
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.matches('chatgglm-widget[mode=floating]')")
        stops.add(page.evaluate(focused))
    assert any("chip" in stop for stop in stops)
    assert any('aria-label="关闭"' in stop for stop in stops)

    chip = reply.locator("button.chip").first
    chip.focus()
    page.keyboard.press("Enter")
    expect(widget.locator(".sheet")).to_be_visible()
    page.keyboard.press("Escape")  # the sheet first, and the focus returns to its chip
    expect(widget.locator(".sheet")).to_have_count(0)
    expect(chip).to_be_focused()
    page.keyboard.press("Escape")  # then the panel, and the focus goes to the button that opens it
    expect(widget.locator(".panel")).to_have_count(0)
    expect(widget.locator(".launcher")).to_be_focused()
    page.keyboard.press("Enter")
    expect(widget.locator("textarea")).to_be_focused()


def test_screen_readers_hear_the_outcome_once(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    widget = page.locator("chatgglm-widget")
    expect(widget.get_by_role("log")).to_have_attribute("aria-live", "off")
    ask(widget, QUESTION)
    expect(widget.get_by_role("status")).to_contain_text("三个月")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colour_scheme_follows_the_system(server: Server, open_page: Open, scheme: str) -> None:
    page = open_page(server.url, color_scheme=scheme)
    panel = page.locator("chatgglm-widget .panel")
    expect(panel).to_be_visible()
    red = int(panel.evaluate("e => getComputedStyle(e).backgroundColor.match(/\\d+/)[0]"))
    assert (red > 200) == (scheme == "light")
    # The page wins over the system.
    page.locator("chatgglm-widget").evaluate("(e, t) => e.setAttribute('theme', t)", "dark")
    expect(panel).to_have_css("background-color", "rgb(23, 29, 28)")


def test_phone_gets_the_whole_screen(server: Server, open_page: Open) -> None:
    page = open_page(server.url, viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    widget = floating(page)
    box = widget.locator(".panel").bounding_box()
    assert box is not None
    assert (box["x"], box["y"], box["width"], box["height"]) == pytest.approx((0, 0, 390, 780), abs=1)
    ask(widget, QUESTION)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390  # nothing sticks out sideways


def test_languages(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    labels = {"en": "Open chat", "zh-Hant-TW": "開啟問答", "zh-CN": "打开问答", "fr": "打开问答"}
    for lang, label in labels.items():
        page.evaluate(
            """lang => {
                const widget = document.createElement('chatgglm-widget');
                Object.assign(widget, {lang, id: lang});
                document.body.append(widget);
            }""",
            lang,
        )
        expect(page.locator(f"#{lang}").get_by_role("button", name=label)).to_be_visible()


def test_home_page_lists_the_documents_and_shows_how_to_embed(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    card = page.locator("#documents li", has_text="员工手册.md")
    expect(card).to_be_visible()
    expect(page.locator("#snippet")).to_contain_text(f'<script src="{server.url}/widget.js" data-kb="default"')
    expect(page.locator("#summary")).to_contain_text("份文档")
    suggestion = page.locator("chatgglm-widget .suggestion").first
    expect(suggestion).to_contain_text("？")  # headings of the user guide are questions
    card.get_by_role("link").click()
    expect(page.locator("#text")).to_contain_text("蓝湾公司员工手册")
