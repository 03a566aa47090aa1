"""Fixtures every test may use: one real server per test process, and names nobody else uses."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import NotInstalled, RedisServer

# A busy machine is no finding.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A job started in the background of a shell ignores SIGINT, and so would every process the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SERVER = os.environ.get("TEST_SERVER", "valkey")
SERVER_7 = "redis" if SERVER == "redis-6.2" else SERVER
"""At least Redis 7, for sharded pub/sub and settings that 6.2 does not know."""


def start_or_skip(binary: str, *options: str) -> RedisServer:
    try:
        return RedisServer(binary, *options).start()
    except NotInstalled as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for the whole run: the one TEST_SERVER names ("redis", "valkey", "redis-8", "redis-6.2")."""
    server = start_or_skip(SERVER)
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of that server, emptied; a test that stopped or froze it does not disturb the next."""
    if not redis_server.process.alive:
        redis_server.start()
    redis_server.thaw()
    redis_server.command("FLUSHALL")
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that belongs to one test, which may break it."""
    server = start_or_skip(SERVER)
    yield server
    server.stop()


@pytest.fixture
def prefix() -> str:
    """A layer prefix no other test uses."""
    return f"t{uuid.uuid4().hex[:8]}"
