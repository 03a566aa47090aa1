"""Nobody gets a message twice, whatever the store did with it."""

from __future__ import annotations

import pytest

from livechannels.node.served import REMEMBERED, SERVED_FOR, Served


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def served(clock: Clock) -> Served:
    return Served(clock)


def test_who_was_served_is_passed_over_once(served: Served) -> None:
    assert served.serve(b"a", ["one", "two"])
    assert served.delivered(b"a") == {"one", "two"}
    assert served.delivered(b"a") == served.delivered(b"b") == ()


def test_what_was_delivered_is_not_served(served: Served) -> None:
    served.delivered(b"a")
    assert not served.serve(b"a", ["one"])


def test_a_second_attempt_under_the_same_id_serves_nobody(served: Served) -> None:
    assert served.serve(b"a", ["one"]) and not served.serve(b"a", ["one", "two"])
    assert served.delivered(b"a") == {"one"}


def test_what_was_never_sent_has_no_id_and_is_always_served(served: Served) -> None:
    assert served.serve(b"", ["one"]) and served.serve(b"", ["one"])
    assert served.delivered(b"") == ()


def test_a_key_that_is_used_again_later_is_a_new_publication(served: Served, clock: Clock) -> None:
    served.serve(b"a", ["one"])
    clock.now += SERVED_FOR
    assert served.delivered(b"a") == ()


def test_it_is_bounded_and_forgets_the_oldest(served: Served) -> None:
    for number in range(REMEMBERED + 1):
        served.serve(b"%d" % number, ["one"])
    assert served.delivered(b"0") == () and served.delivered(b"1") == {"one"}


def test_who_was_served_is_let_go_when_the_time_is_over(served: Served, clock: Clock) -> None:
    for number in range(10):
        served.serve(b"old%d" % number, ["one"])
    clock.now += SERVED_FOR
    served.delivered(b"another")
    assert not served._audiences and not served._last


def test_one_audience_is_kept_once(served: Served) -> None:
    for number in range(3):
        served.serve(b"%d" % number, ["one", "two"])
    assert len({id(served.delivered(b"%d" % number)) for number in range(3)}) == 1
