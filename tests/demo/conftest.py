from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.demo.running import RunningDemo


@pytest.fixture(scope="module")
def demo() -> Iterator[RunningDemo]:
    """One node on the memory engine: what the views do does not depend on more."""
    with RunningDemo(nodes=1, ENGINE="memory") as running:
        yield running
