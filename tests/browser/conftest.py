"""A real server over a real knowledge base, and Debian's Chromium looking at it.

The fixtures live for this folder only: Playwright keeps an event loop running in the main thread, in
which other tests could not run theirs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect, sync_playwright

from ingest.guide import bundled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

DOCUMENTS = Path(__file__).parent / "documents"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CONTEXT = {"locale": "zh-CN", "viewport": {"width": 1200, "height": 820}, "reduced_motion": "reduce"}
START_S = 120
expect.set_options(timeout=20_000)  # two cores may have much else to do


@dataclass(frozen=True)
class Server:
    """A running `chatgglm serve` and the environment that its commands share."""

    url: str
    env: dict[str, str] = field(repr=False)

    def run(self, *args: str) -> str:
        """Another `chatgglm` command on the same data."""
        return chatgglm(self.env, *args)


def chatgglm(env: dict[str, str], *args: str) -> str:
    """Runs the command to its end; its stdout. Fails the test where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *args], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"chatgglm {' '.join(args)}: {done.stderr[-2000:]}"
    return done.stdout


@contextlib.contextmanager
def serving(env: dict[str, str]) -> Iterator[str]:
    """`chatgglm serve` on a free port of this machine; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "serve", "--port", "0", "--no-guide"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    errors: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
    reader.start()
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        url = ""
        for line in process.stdout:
            if found := re.search(r"http://[\d.]+:\d+", line):
                url = found.group()
                break
        assert url, f"the server did not start: {''.join(errors)[-2000:]}"
        timer.cancel()
        yield url
    finally:
        timer.cancel()
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="package")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data directory of its own, with a handbook and the user guide in the knowledge base `default`."""
    env = {**os.environ, "CHATGGLM_HOME": str(tmp_path_factory.mktemp("home"))}
    chatgglm(env, "ingest", str(DOCUMENTS / "handbook"), str(bundled()))
    return env


@pytest.fixture(scope="package")
def server(environment: dict[str, str], browser: Browser) -> Iterator[Server]:
    """The real thing: shipped weights, real documents, started by the real command."""
    with serving(environment) as url:
        yield Server(url, environment)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium; the tests are skipped where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium fonts-noto-cjk)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages in contexts of their own; afterwards no page may have complained.

    Complaints are script errors, console errors and violations of the content security policy.
    `page.expected` lists substrings of complaints that the test provokes.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    expected: list[str] = []

    def open_page(url: str = "", **options: Any) -> Page:
        context = browser.new_context(**{**CONTEXT, **options})
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"script error: {error}"))
        page.on(
            "console",
            lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.expected = expected  # type: ignore[attr-defined]
        if url:
            page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    left = [text for text in complaints if not any(part in text for part in expected)]
    assert not left, f"the pages complained: {left}"
