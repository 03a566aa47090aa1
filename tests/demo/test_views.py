from __future__ import annotations

import json

import pytest

from tests.demo.running import RunningDemo, Visitor


@pytest.fixture
def guest(demo: RunningDemo) -> Visitor:
    return Visitor(demo)


@pytest.fixture
def bob(demo: RunningDemo) -> Visitor:
    visitor = Visitor(demo)
    visitor.sign_in("bob")
    return visitor


def details(visitor: Visitor) -> dict[str, object]:
    status, text = visitor.get("/dashboards/1", accept="application/json")
    assert status == 200
    return dict(json.loads(text))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/plain",
        "/dashboards/1",
        "/static/dashboards/dashboard.js",
        "/static/dashboards/vendor/uPlot.iife.min.js",
        "/static/livechannels/centrifuge.js",
        "/favicon.ico",
    ],
)
def test_guests_see_every_page_and_what_it_needs(guest: Visitor, path: str) -> None:
    status, text = guest.get(path)
    assert status == 200
    assert text


def test_the_seeded_dashboard_has_its_panels(guest: Visitor) -> None:
    channels = [panel["channel"] for panel in details(guest)["panels"]]  # type: ignore[attr-defined]
    assert channels == [
        "source/host/cpu",
        "source/host/memory",
        "source/host/disk",
        "source/host/network",
        "stream/demo/temperature",
    ]


def test_renaming_counts_versions_and_refuses_a_stale_one(bob: Visitor) -> None:
    version = details(bob)["version"]
    status, answer = bob.send("PATCH", "/dashboards/1", {"title": "Bob's board", "version": version})
    assert (status, answer["title"]) == (200, "Bob's board")
    assert answer["version"] == version + 1  # type: ignore[operator]
    status, answer = bob.send("POST", "/dashboards/1", {"title": "Too late", "version": version})
    assert (status, answer["title"]) == (409, "Bob's board")


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[]", b'{"title": "x"}', b'{"title": "  ", "version": V}', b'{"title": "TOO", "version": V}'],
)
def test_what_is_no_title_is_refused_with_a_reason(bob: Visitor, body: bytes) -> None:
    before = details(bob)
    body = body.replace(b"TOO", b"x" * 81).replace(b"V", str(before["version"]).encode())
    status, answer = bob.send("PATCH", "/dashboards/1", body)
    assert status == 400
    assert answer["error"]
    assert details(bob) == before


def test_guests_change_nothing(guest: Visitor) -> None:
    before = details(guest)
    status, answer = guest.send("PATCH", "/dashboards/1", {"title": "Mine", "version": before["version"]})
    assert status == 403
    assert "Sign in" in answer["error"]
    assert guest.send("POST", "/announce", {"message": "hello"})[0] == 403
    assert details(guest) == before


def test_a_request_without_the_token_of_its_page_is_refused(bob: Visitor) -> None:
    version = details(bob)["version"]
    assert bob.send("PATCH", "/dashboards/1", {"title": "Forged", "version": version}, token="x" * 64)[0] == 403


def test_staff_announce_and_long_announcements_are_refused(demo: RunningDemo) -> None:
    alice = Visitor(demo)
    alice.sign_in("alice")
    assert alice.send("POST", "/announce", {"message": "Lunch"})[0] == 204
    assert alice.send("POST", "/announce", {"message": "x" * 201})[0] == 400
    assert alice.send("POST", "/announce", {})[0] == 400


def test_signing_out_and_unknown_people_make_a_guest(bob: Visitor) -> None:
    bob.sign_in("mallory")
    version = details(bob)["version"]
    assert bob.send("PATCH", "/dashboards/1", {"title": "x", "version": version})[0] == 403


def test_an_unknown_dashboard_is_not_found(guest: Visitor) -> None:
    assert guest.get("/dashboards/999")[0] == 404
