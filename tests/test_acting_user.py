from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import RequestFactory

from livechannels.dashboards import ActingUserMiddleware, Actor, acting_user, current_actor

ANN = User(pk=1, username="ann")


def test_blocks_nest_and_end() -> None:
    assert current_actor() == Actor()
    with acting_user("ann", message="one"):
        with acting_user("bob", tab="t"):
            assert current_actor() == Actor("bob", "t", "")
        assert current_actor() == Actor("ann", None, "one")
    assert current_actor() == Actor()


def request(**headers: str) -> Any:
    made = RequestFactory().get("/", headers=headers)
    made.user = ANN
    return made


def test_the_middleware_names_the_user_and_the_tab_of_a_sync_view() -> None:
    seen: list[Actor] = []

    def view(request: Any) -> HttpResponse:
        seen.append(current_actor())
        return HttpResponse()

    assert ActingUserMiddleware(view)(request(**{"X-Live-Tab": "t" * 100})).status_code == 200  # type: ignore[union-attr]
    assert (seen[0].user.username, seen[0].tab) == ("ann", "t" * 64)
    assert current_actor() == Actor()


async def test_the_middleware_of_an_async_view() -> None:
    seen: list[Actor] = []

    async def view(request: Any) -> HttpResponse:
        seen.append(current_actor())
        return HttpResponse()

    await ActingUserMiddleware(view)(request())  # type: ignore[misc]
    assert (seen[0].user.username, seen[0].tab) == ("ann", None)


def test_a_request_without_a_user_acts_as_nobody() -> None:
    def view(request: Any) -> HttpResponse:
        assert not current_actor().user
        return HttpResponse()

    ActingUserMiddleware(view)(RequestFactory().get("/"))
