"""What the widget makes of answers that are hard to get from a model on purpose."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

sys.path.insert(0, str(Path(__file__).parent))  # the suite imports its files by path
from scripted import CueReader, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Open = Callable[..., "Page"]
DOCUMENTS = Path(__file__).parent / "documents"
CUES = {
    "试用期": ["三个月", "六个月"],
    "步骤": ["请主管批准"],
    "工龄": ["工龄：十年以上；年假：十五天；说明：全薪"],
    "申请单": ["申请单写成 <b>姓名</b> 加日期，例如 3~5天、7~9天 的年假写 A*B*C 和 [1](https://example.invalid)，"],
    "危险": ["页面不会执行 <img src=x onerror=\"document.title='坏'\"> 这样的内容。"],
    "年假": ["十个工作日"],
}


@pytest.fixture(scope="module")
def reader() -> CueReader:
    """What the server reads with."""
    return CueReader(CUES)


@pytest.fixture(scope="module")
def url(browser: Browser, reader: CueReader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server."""
    with serving(tmp_path_factory.mktemp("home"), DOCUMENTS, reader) as address:
        yield address


def start(widget: Locator, question: str) -> Locator:
    """Sends a question; the reply, which may be on its way."""
    widget.locator("textarea").fill(question)
    widget.locator("textarea").press("Enter")
    return widget.locator(".assistant").last


def ask(widget: Locator, question: str) -> Locator:
    """Sends a question; the reply once it has ended."""
    reply = start(widget, question)
    expect(reply.locator(".tools")).to_be_visible()
    return reply


def messages(url: str, conversation: str) -> list[dict[str, Any]]:
    """A conversation as the server stored it."""
    with urllib.request.urlopen(f"{url}/v1/conversations/{conversation}/messages", timeout=30) as response:
        rows: list[dict[str, Any]] = json.load(response)["data"]
        return rows


def test_copied_text_is_shown_as_it_stands(url: str, open_page: Open) -> None:
    page = open_page(url)
    reply = ask(page.locator("chatgglm-widget"), "申请单怎么写？")
    body = reply.locator(".markdown")
    expect(body).to_contain_text("写成 <b>姓名</b> 加日期，例如 3~5天、7~9天 的年假写 A*B*C")  # no tag, ~ or * eaten
    assert body.locator("b, del, em, s").count() == 0
    chips = body.locator("button.chip")
    expect(chips).to_have_count(1)  # the document's own [1] is no marker
    expect(chips).to_have_text("1")


def test_markup_in_documents_does_nothing(url: str, open_page: Open) -> None:
    page = open_page(url)
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    reply = ask(page.locator("chatgglm-widget"), "危险的内容是什么？")
    expect(reply.locator(".markdown")).to_contain_text("<img src=x onerror=")
    assert reply.locator("img, script, iframe").count() == 0
    assert "坏" not in page.title()


def test_sources_that_disagree_are_both_shown(url: str, open_page: Open) -> None:
    page = open_page(url)
    widget = page.locator("chatgglm-widget")
    reply = ask(widget, "试用期是多久？")
    expect(reply.locator(".warning")).to_contain_text("不一致")
    expect(reply.locator(".markdown li")).to_have_text(["三个月1（《蓝湾公司员工手册》）", "六个月2（《旧版手册》）"])
    expect(reply.locator(".quote b")).to_have_text(["三个月", "六个月"])
    reply.locator(".markdown button.chip").first.click()
    sheet = widget.get_by_role("dialog")
    expect(sheet.locator("mark")).to_have_text("三个月")
    sheet.get_by_role("button", name="下一处").click()
    expect(sheet.locator("mark")).to_have_text("六个月")
    expect(sheet.get_by_role("heading")).to_contain_text("旧版手册")
    expect(sheet.get_by_role("button", name="下一处")).to_be_disabled()


def test_a_procedure_is_a_list(url: str, open_page: Open) -> None:
    page = open_page(url)
    reply = ask(page.locator("chatgglm-widget"), "请假有哪些步骤？")
    expect(reply.locator(".markdown ol > li")).to_have_count(3)
    expect(reply.locator(".markdown ol > li").nth(1)).to_have_text("请主管批准2")  # each step with its own source


def test_stop_keeps_what_the_server_calls_interrupted(url: str, reader: CueReader, open_page: Open) -> None:
    page = open_page(url)
    widget = page.locator("chatgglm-widget")
    reader.entered.clear()
    reader.go_on.clear()
    try:
        with page.expect_response(lambda r: r.url.endswith("/v1/conversations")) as created:
            reply = start(widget, "年假有几天？")
        expect(reply.locator(".waiting")).to_contain_text("正在阅读")  # the passages are there, the answer is not
        assert reader.entered.wait(20)
        expect(widget.get_by_role("button", name="发送")).to_have_count(0)
        with page.expect_event("requestfailed"):  # the page closes the connection …
            widget.get_by_role("button", name="停止").click()
        expect(reply).to_contain_text("已停止")
        page.wait_for_timeout(1000)  # … and the server sees that before its reader goes on
    finally:
        reader.go_on.set()
    conversation = created.value.json()["id"]
    deadline = time.monotonic() + 20
    while (last := messages(url, conversation)[-1])["status"] != "interrupted":
        assert time.monotonic() < deadline, last
        time.sleep(0.1)
    again = ask(widget, "年假到底有几天？")
    expect(again.locator(".markdown")).to_contain_text("十个工作日")


def test_an_error_in_the_middle_of_a_stream(url: str, open_page: Open) -> None:
    page = open_page(url)
    widget = page.locator("chatgglm-widget")
    reply = ask(widget, "坏了怎么办？")
    expect(reply.locator(".problem")).to_contain_text("没有得到回答")
    expect(reply.get_by_role("button", name="重试")).to_be_visible()
    expect(reply.get_by_role("button", name="有帮助")).to_have_count(0)
    expect(ask(widget, "年假有几天？").locator(".markdown")).to_contain_text("十个工作日")


def test_answer_arrives_in_pieces(url: str, open_page: Open) -> None:
    page = open_page(url)
    widget = page.locator("chatgglm-widget")
    widget.evaluate(
        """e => {
            window.lengths = new Set();
            const seen = () => window.lengths.add(e.shadowRoot.querySelector('.markdown')?.textContent.length ?? 0);
            new MutationObserver(seen).observe(e.shadowRoot, {subtree: true, childList: true, characterData: true});
        }"""
    )
    ask(widget, "申请单怎么写？")
    assert len(page.evaluate("() => [...window.lengths]")) > 3


def test_page_hears_of_answers(url: str, open_page: Open) -> None:
    page = open_page(url)
    page.evaluate("() => document.addEventListener('chatgglm:answer', e => { window.heard = e.detail.answer; })")
    page.evaluate("() => window.ChatGGLM.ask('年假有几天？')")
    assert page.evaluate("() => window.heard") == "十个工作日"


def test_two_tabs_keep_both_conversations(url: str, open_page: Open) -> None:
    first = open_page(url)
    second = first.context.new_page()
    second.goto(url)
    ask(first.locator("chatgglm-widget"), "年假有几天？")
    ask(second.locator("chatgglm-widget"), "请假有哪些步骤？")
    first.locator("chatgglm-widget").get_by_role("button", name="历史对话").click()
    expect(first.locator("chatgglm-widget .past")).to_have_count(2)


def test_without_local_storage_the_widget_still_answers(url: str, open_page: Open) -> None:
    page = open_page()
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('off', 'SecurityError'); }})"
    )
    page.goto(url)
    widget = page.locator("chatgglm-widget")
    expect(ask(widget, "年假有几天？").locator(".markdown")).to_contain_text("十个工作日")
    expect(ask(widget, "请假有哪些步骤？").locator(".markdown li")).to_have_count(3)
