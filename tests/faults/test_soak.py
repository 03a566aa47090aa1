"""A little of every topology's random faults; `make soak` runs it for as long as you like."""

from __future__ import annotations

import random

import pytest

from tests.conftest import SERVER
from tests.faults.soak import soak


@pytest.mark.timeout(180)
def test_half_a_minute_on_a_single_server(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    report = soak("single", 30, seed, tmp_path, SERVER)
    print(report)
    assert report.violations == []
    assert sum(report.faults.values()) >= 4


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("topology", ["sentinel", "haproxy", "cluster"])
def test_a_minute_on(topology, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    report = soak(topology, 60, seed, tmp_path, "redis" if SERVER == "redis-6.2" and topology == "cluster" else SERVER)
    print(report)
    assert report.violations == []
