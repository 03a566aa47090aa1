"""Servers, proxies and nodes of the fault tests. TEST_SERVER names the server they run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import SERVER
from tests.faults.proxy import FaultProxy
from tests.servers import NotInstalled, RedisServer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Everything entered here is stopped at the end, newest first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def server(stack: ExitStack) -> RedisServer:
    try:
        return stack.enter_context(RedisServer(SERVER))
    except NotInstalled as missing:
        pytest.skip(str(missing))


@pytest.fixture
def proxies(server: RedisServer, stack: ExitStack) -> list[FaultProxy]:
    """One way to the server for each of two nodes."""
    return [stack.enter_context(FaultProxy(server.port)) for _ in range(2)]
