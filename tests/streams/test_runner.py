from __future__ import annotations

from livechannels.streams.runner import Backoff


def test_doubles_up_to_five_seconds():
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_starts_over_after_a_life():
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (0, 0, 1.5, 0, 0.9)] == [0.1, 0.2, 0.1, 0.2, 0.4]


def test_a_life_shorter_than_the_pause_before_it_does_not_count():
    backoff = Backoff()
    for _ in range(7):
        backoff.after(0)
    assert backoff.after(2) == 5.0
    assert backoff.after(6) == 0.1
