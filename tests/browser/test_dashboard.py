"""The main job in a real browser, on two nodes that share a server."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open
from tests.demo.running import RunningDemo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SOON = 15_000  # milliseconds; far more than it takes


def panel(page: Page, title: str) -> Locator:
    return page.locator("article.panel", has=page.get_by_role("heading", name=title, exact=True))


def samples(page: Page, title: str) -> int:
    return int(panel(page, title).get_attribute("data-samples") or 0)


def wait_for_samples(page: Page, title: str, count: int) -> None:
    page.wait_for_function(
        "([id, count]) => Number(document.getElementById(id).dataset.samples) >= count",
        arg=[panel(page, title).get_attribute("id"), count],
        timeout=SOON,
    )


def renames(page: Page) -> Locator:
    """Notices of a rename; others may come and go."""
    return page.locator(".toast", has_text="was renamed")


def rename(page: Page, title: str) -> None:
    page.get_by_role("button", name="Rename this dashboard").click()
    page.get_by_label("Title of the dashboard").fill(title)
    page.get_by_role("button", name="Save").click()


def test_every_host_panel_moves_on_both_nodes(demo: RunningDemo, open_page: Open) -> None:
    for number in (0, 1):
        page = open_page(demo.url(number))
        for title in ("CPU per core", "Memory", "Disk", "Network"):
            wait_for_samples(page, title, 2)
            expect(panel(page, title).locator("canvas")).to_be_visible()
        expect(page.locator("#state")).to_have_text("Live")
        expect(page.locator("#node")).to_have_text(f"node-{number}")


def test_a_fresh_browser_shows_a_chart_within_two_seconds(demo: RunningDemo, open_page: Open) -> None:
    times = []
    for number in (0, 1, 0):
        began = time.monotonic()
        page = open_page(demo.url(number))
        wait_for_samples(page, "CPU per core", 1)
        times.append(time.monotonic() - began)
        page.context.close()
    # The best of three: what else the machine does is not the page's fault.
    assert min(times) < 2, times


def test_a_push_to_one_node_shows_on_the_other(demo: RunningDemo, open_page: Open) -> None:
    page = open_page(demo.url(0))
    pushed = panel(page, "Pushed from outside")
    expect(page.locator("#state")).to_have_text("Live", timeout=SOON)
    assert demo.push(1, "temperature,room=lab celsius=23.5") == 204
    expect(pushed.locator(".legend")).to_contain_text("celsius · room=lab", timeout=SOON)
    expect(pushed.locator(".legend b").first).to_have_text("23.5")
    demo.push(1, "temperature,room=hall celsius=18")
    expect(pushed.locator(".legend")).to_contain_text("celsius · room=hall", timeout=SOON)
    expect(pushed.locator(".legend b").first).to_have_text("23.5")


def test_a_rename_on_one_node_is_told_on_the_other(demo: RunningDemo, open_page: Open) -> None:
    watching = open_page(demo.url(0))
    expect(watching.locator("#state")).to_have_text("Live", timeout=SOON)
    renaming = open_page(demo.url(1), user="alice")
    expect(renaming.locator("#state")).to_have_text("Live", timeout=SOON)
    before = watching.get_by_role("heading", level=1).inner_text()
    renaming.get_by_role("button", name="Rename this dashboard").click()
    expect(watching.locator("#editing")).to_have_text("alice is editing", timeout=SOON)
    renaming.get_by_label("Title of the dashboard").fill("Engine room")
    renaming.get_by_role("button", name="Save").click()
    expect(renames(watching)).to_have_text(f"“{before}” was renamed “Engine room” by alice.", timeout=SOON)
    expect(watching.get_by_role("heading", level=1)).to_have_text("Engine room")
    expect(watching.locator("#editing")).to_be_hidden()
    expect(renames(renaming)).to_have_count(0)
    expect(renaming.get_by_role("heading", level=1)).to_have_text("Engine room")


def test_guests_cannot_rename_and_bob_can(demo: RunningDemo, open_page: Open) -> None:
    expect(open_page(demo.url(0)).locator("#rename")).to_be_hidden()
    bob = open_page(demo.url(0), user="bob")
    expect(bob.locator("#state")).to_have_text("Live", timeout=SOON)
    rename(bob, "Bob's board")
    expect(bob.get_by_role("heading", level=1)).to_have_text("Bob's board", timeout=SOON)


def test_people_on_both_nodes_see_each_other(demo: RunningDemo, open_page: Open) -> None:
    alice = open_page(demo.url(0), user="alice")
    bob = open_page(demo.url(1), user="bob")
    for page in (alice, bob):
        expect(page.locator("#people li[title^=alice]")).to_be_visible(timeout=SOON)
        expect(page.locator("#people li[title^=bob]")).to_be_visible(timeout=SOON)
    bob.context.close()
    expect(alice.locator("#people li[title^=bob]")).to_have_count(0, timeout=SOON)


def test_an_announcement_reaches_everyone_and_who_comes_later(demo: RunningDemo, open_page: Open) -> None:
    alice = open_page(demo.url(0), user="alice")
    there = open_page(demo.url(1))
    expect(there.locator("#state")).to_have_text("Live", timeout=SOON)
    alice.get_by_label("Announcement").fill("Lunch is ready")
    alice.get_by_role("button", name="Send").click()
    expect(there.locator("#announcement")).to_contain_text("Lunch is ready", timeout=SOON)
    later = open_page(demo.url(1))
    expect(later.locator("#announcement")).to_contain_text("Lunch is ready", timeout=SOON)
    later.get_by_role("button", name="Dismiss").click()
    later.reload()
    wait_for_samples(later, "CPU per core", 1)
    expect(later.locator("#announcement")).to_be_hidden()


def test_a_reload_shows_history_at_once(demo: RunningDemo, open_page: Open) -> None:
    page = open_page(demo.url(0))
    wait_for_samples(page, "CPU per core", 6)
    known = samples(page, "CPU per core")
    page.reload()
    page.wait_for_function("document.querySelector('[data-samples]')", timeout=SOON)
    # A frame comes once a second: without history there would be one.
    assert samples(page, "CPU per core") >= known


def test_a_window_longer_than_the_first_picture_is_filled_from_history(demo: RunningDemo, open_page: Open) -> None:
    page = open_page(demo.url(0))
    page.get_by_role("button", name="15m").click()
    expect(page.get_by_role("button", name="15m")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.get_by_role("button", name="15m")).to_have_attribute("aria-pressed", "true")
    wait_for_samples(page, "CPU per core", 2)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_theme_follows_the_system_until_it_is_switched(demo: RunningDemo, open_page: Open, scheme: str) -> None:
    page = open_page(demo.url(0), color_scheme=scheme)
    colour = "() => getComputedStyle(document.body).backgroundColor"
    wait_for_samples(page, "CPU per core", 1)
    before = page.evaluate(colour)
    page.locator("#theme").click()
    after = page.evaluate(colour)
    assert before != after
    page.reload()
    assert page.evaluate(colour) == after


def test_the_page_fits_a_phone(demo: RunningDemo, open_page: Open) -> None:
    page = open_page(demo.url(0))
    page.set_viewport_size({"width": 360, "height": 740})
    wait_for_samples(page, "CPU per core", 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_plain_consumer_shows_the_stream_without_a_client_library(demo: RunningDemo, open_page: Open) -> None:
    page = open_page(demo.url(1, "/plain"))
    expect(page.locator("#meters b").first).to_have_text(re.compile(r"^\d+\.\d %$"), timeout=SOON)
    expect(page.locator("#state")).to_have_text("Live")
    newest = page.locator("#log li").first.inner_text()
    expect(page.locator("#log li").first).not_to_have_text(newest, timeout=SOON)
    assert page.evaluate("typeof Centrifuge") == "undefined"
