from __future__ import annotations

from collections import namedtuple

import pytest

from demo_project.dashboards.host import READERS, RateReader, busy_percent

Times = namedtuple("Times", "user system idle iowait guest")


@pytest.mark.parametrize(
    ("now", "percent"),
    [
        (Times(10, 0, 90, 0, 0), 10),
        (Times(30, 20, 30, 20, 30), 50),  # guest time is part of user time
        (Times(0, 0, 0, 0, 0), 0),  # no time has passed
        (Times(7, 0, 0, 0, 0), 100),
    ],
)
def test_busy_is_what_is_neither_idle_nor_waiting(now: Times, percent: float) -> None:
    assert busy_percent(Times(0, 0, 0, 0, 0), now) == pytest.approx(percent)


def test_rates_never_are_negative_and_new_counters_start_at_zero() -> None:
    counters = iter([{"read": 1000}, {"read": 10, "written": 500}, {"read": 2**40, "written": 500}])
    reader = RateReader(lambda: next(counters))
    assert reader.read() == {"read": 0, "written": 0}
    rates = reader.read()
    assert rates["read"] > 0
    assert rates["written"] == 0


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_this_host(name: str) -> None:
    reader = READERS[name]()
    first, second = reader.read(), reader.read()
    assert first
    assert first.keys() == second.keys()
    assert all(isinstance(value, float) or value == 0 for value in second.values())
