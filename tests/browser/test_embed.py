"""The widget on other people's pages: strict CSP, registered and unregistered sites, the ES module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from conftest import Server  # type: ignore[import-not-found]
    from playwright.sync_api import Page

Open = Callable[..., "Page"]
QUESTION = "新员工的试用期是多长时间？"


class Site:
    """A foreign web site on another origin of this machine, with the strictest policy that lets the widget work."""

    def __init__(self, server_url: str) -> None:
        self.html = ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = site.html.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header(
                    "Content-Security-Policy",
                    f"default-src 'none'; script-src {server_url}; connect-src {server_url}; img-src 'self'; "
                    "require-trusted-types-for 'script'",
                )
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends the site."""
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def site(server: Server) -> Iterator[Site]:
    """An unregistered site."""
    site = Site(server.url)
    yield site
    site.close()


def document(body: str) -> str:
    """An HTML page."""
    head = '<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>别人的网站</title>'
    return f"{head}<body><h1>别人的网站</h1>{body}</body></html>"


def test_registered_site_with_a_strict_policy(server: Server, site: Site, open_page: Open) -> None:
    server.run("sites", "add", site.origin, "--kb", "default")
    site.html = document(f'<script src="{server.url}/widget.js" data-title="请教"></script>')
    page = open_page(site.origin)  # the fixture fails on any violation of the policy
    widget = page.locator("chatgglm-widget")
    widget.get_by_role("button", name="打开问答").click()
    expect(widget.get_by_role("dialog")).to_have_accessible_name("请教")
    with page.expect_request(lambda r: r.url.endswith("/v1/ask")) as asked:
        widget.locator("textarea").fill(QUESTION)
        widget.locator("textarea").press("Enter")
    assert asked.value.headers["authorization"].startswith("Bearer cgw-")  # a short-lived token, no key
    expect(widget.locator(".assistant .markdown")).to_contain_text("三个月", timeout=60_000)
    widget.locator("button.chip").first.click()
    expect(widget.locator(".sheet .context")).to_contain_text("主管可以提前结束试用期")
    with page.context.expect_page() as opened:
        widget.get_by_role("link", name="打开全文").click()
    viewer = opened.value
    expect(viewer.locator("mark")).to_contain_text("三个月")
    assert "token" not in viewer.url  # taken out of the address at once


def test_unregistered_site_is_told_what_to_do(server: Server, site: Site, open_page: Open) -> None:
    site.html = document(f'<script src="{server.url}/widget.js" data-open></script>')
    page = open_page(site.origin)
    page.expected += ["CORS", "ERR_FAILED", "403"]  # type: ignore[attr-defined]
    widget = page.locator("chatgglm-widget")
    widget.locator("textarea").fill(QUESTION)
    widget.locator("textarea").press("Enter")
    expect(widget.locator(".problem")).to_contain_text("chatgglm sites add", timeout=60_000)


def test_module_and_inline_mode(server: Server, site: Site, open_page: Open) -> None:
    site.html = document(
        f'<div id="here"></div><script type="module" src="{server.url}/widget.mjs"></script>'
        '<chatgglm-widget mode="inline" heading="就在页面里"></chatgglm-widget>'
    )
    page = open_page(site.origin)
    widget = page.locator("chatgglm-widget")
    expect(widget.get_by_role("region", name="就在页面里")).to_be_visible()
    assert widget.evaluate("e => getComputedStyle(e).position") == "static"
    mounted = page.evaluate(
        """async url => {
            const { mount } = await import(url);
            return mount({mode: 'inline', lang: 'en'}, document.querySelector('#here')).isConnected;
        }""",
        f"{server.url}/widget.mjs",
    )
    assert mounted
    expect(page.locator("#here chatgglm-widget").get_by_role("button", name="Send")).to_be_visible()


def test_a_second_widget_among_hostile_styles(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    page.evaluate(  # what a hostile page style would be; the shadow root keeps it out
        """() => {
            const sheet = new CSSStyleSheet();
            sheet.replaceSync('button { display: none !important } textarea { font-size: 40px !important }');
            document.adoptedStyleSheets = [sheet];
            const widget = document.createElement('chatgglm-widget');
            widget.id = 'second';
            document.body.append(widget);
        }"""
    )
    launcher = page.locator("#second").get_by_role("button")
    expect(launcher).to_be_visible()
    launcher.click()
    expect(page.locator("#second textarea")).to_have_css("font-size", "15px")
