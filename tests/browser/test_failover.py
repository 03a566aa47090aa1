"""A node dies: its streams go on elsewhere and its viewers are told where. And the seed's limits without Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Open
from tests.browser.test_dashboard import SOON, panel, rename, renames, samples, wait_for_samples
from tests.demo.running import RunningDemo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

TAKEOVER = 3.5  # seconds: the lease's time to live and half a second


@pytest.fixture
def own_demo(chromium: Browser) -> Iterator[RunningDemo]:
    with RunningDemo(nodes=2) as running:
        yield running


@pytest.fixture
def lonely_nodes(chromium: Browser) -> Iterator[RunningDemo]:
    with RunningDemo(nodes=2, ENGINE="memory") as running:
        yield running


def leader(page: Page, stream: str = "cpu") -> int:
    words = page.locator(f"#leaders li[data-channel='source/host/{stream}'] b")
    expect(words).to_be_visible(timeout=SOON)
    return int(words.inner_text().removeprefix("node-"))


def test_the_host_metrics_go_on_when_their_leader_is_killed(
    own_demo: RunningDemo, open_page: Open, complaints: list[str]
) -> None:
    scout = open_page(own_demo.url(0))
    wait_for_samples(scout, "CPU per core", 3)
    victim = leader(scout)
    survivor = 1 - victim
    page = open_page(own_demo.url(survivor))
    stranded = open_page(own_demo.url(victim))
    wait_for_samples(page, "CPU per core", 3)
    expect(stranded.locator("#state")).to_have_text("Live", timeout=SOON)

    known = samples(page, "CPU per core")
    own_demo.node(victim).kill()
    killed = time.monotonic()
    expect(page.locator("#leaders li[data-channel='source/host/cpu'] b")).to_have_text(f"node-{survivor}", timeout=SOON)
    took = time.monotonic() - killed
    # The first frame of a new leader comes up to a second after it took over.
    assert took < TAKEOVER + 1 + 0.5
    expect(page.locator(".toast", has_text=f"node-{survivor} took over").first).to_be_visible(timeout=SOON)
    expect(page.locator("#state")).to_have_text("Live")
    wait_for_samples(page, "CPU per core", known + 3)

    expect(stranded.locator("#state")).to_have_text("Reconnecting", timeout=SOON)
    expect(stranded.locator("#away")).to_contain_text(f"node-{survivor}", timeout=SOON)
    for window in (stranded, scout, page):
        window.close()  # else the next attempt to connect would add one more complaint
    assert all("ERR_CONNECTION_REFUSED" in text for text in complaints), complaints
    complaints.clear()


def test_two_nodes_on_the_memory_engine_have_the_three_limits_redis_lifts(
    lonely_nodes: RunningDemo, open_page: Open
) -> None:
    pages = [open_page(lonely_nodes.url(number), user="alice") for number in (0, 1)]
    for page in pages:
        wait_for_samples(page, "CPU per core", 2)

    # A backend stream is opened on each.
    assert [leader(page) for page in pages] == [0, 1]

    # A push stays where it came in.
    lonely_nodes.push(1, "temperature,room=lab celsius=23.5")
    expect(panel(pages[1], "Pushed from outside").locator(".legend b")).to_have_text("23.5", timeout=SOON)

    # And so does the notice of a change: a second window of the same node gets it.
    neighbour = open_page(lonely_nodes.url(1))
    expect(neighbour.locator("#state")).to_have_text("Live", timeout=SOON)
    rename(pages[1], "Only here")
    expect(renames(neighbour)).to_contain_text("Only here", timeout=SOON)
    wait_for_samples(pages[0], "CPU per core", samples(pages[0], "CPU per core") + 2)
    expect(panel(pages[0], "Pushed from outside").locator(".legend b")).to_have_count(0)
    expect(renames(pages[0])).to_have_count(0)
    expect(pages[0].get_by_role("heading", level=1)).to_have_text("Host overview")
