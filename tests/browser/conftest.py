"""A real Chromium, and pages that may not complain."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.demo.running import RunningDemo

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for each module: while Playwright runs, its event loop leaves no room for tests that need one."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def demo(chromium: Browser) -> Iterator[RunningDemo]:
    with RunningDemo(nodes=2) as running:
        yield running


@pytest.fixture
def complaints() -> list[str]:
    """What pages said on the console as a warning or worse; a test that breaks something on purpose clears it."""
    return []


@pytest.fixture
def open_page(chromium: Browser, complaints: list[str]) -> Iterator[Open]:
    """`open_page(url, user="")` opens it as a person of its own: another window of another browser."""
    contexts = []

    def said(message: ConsoleMessage) -> None:
        if message.type in ("warning", "error"):
            complaints.append(message.text)

    def open_as(url: str, user: str = "", **options: object) -> Page:
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        if user:
            with page.expect_navigation():
                page.select_option("#person", user)
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert complaints == []
