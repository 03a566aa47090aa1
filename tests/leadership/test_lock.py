from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from livechannels.engines.base import LeaseGet
from livechannels.exceptions import EngineUnavailable, InvalidChannelName, LeaseLost
from livechannels.layer import LiveChannelLayer
from livechannels.messages import topics

TTL = 0.6


@pytest.fixture
def layer() -> LiveChannelLayer:
    return LiveChannelLayer(ha_engine="memory")


def holder(layer: LiveChannelLayer, name: str = "job") -> Any:
    return layer.run_sync(LeaseGet(topics.lock(name)))


def steal(layer: LiveChannelLayer, name: str = "job") -> None:
    layer.engine._store._leases[topics.lock(name)].session = "somebody else"


async def test_one_holder_at_a_time(layer):
    inside = most = 0

    async def work() -> int:
        nonlocal inside, most
        async with layer.leader_lock("job", ttl=TTL) as lock:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1
            return lock.token

    tokens = await asyncio.wait_for(asyncio.gather(*(work() for _ in range(5))), 10)
    assert most == 1
    assert len(set(tokens)) == 5
    assert holder(layer) is None


async def test_is_renewed_while_the_block_runs(layer):
    async with layer.leader_lock("job", ttl=TTL) as lock:
        await asyncio.sleep(3 * TTL)
        assert lock.held
        assert not lock.lost
        lock.check()
        assert holder(layer).token == lock.token
    assert not lock.held


async def test_a_waiter_gets_it_soon_after_release(layer):
    async with layer.leader_lock("job", ttl=3):
        second = asyncio.ensure_future(layer.leader_lock("job", ttl=3).__aenter__())
        await asyncio.sleep(0.1)
        assert not second.done()
    lock = await asyncio.wait_for(second, 1.5)
    await lock.__aexit__(None, None, None)


async def test_timeout_says_who_holds_it(layer):
    async with layer.leader_lock("job", ttl=30):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"leader_lock\('job'\) is held by "):
            async with layer.leader_lock("job", timeout=0.3):
                pytest.fail("two holders")
        assert 0.25 < time.monotonic() - began < 1
        with pytest.raises(TimeoutError):
            async with layer.leader_lock("job", timeout=0):
                pytest.fail("two holders")


async def test_names_are_independent_and_checked(layer):
    async with layer.leader_lock("job"), layer.leader_lock("other", timeout=0):
        pass
    with pytest.raises(InvalidChannelName):
        layer.leader_lock("no spaces")


async def test_a_lost_lease_cancels_the_block_and_raises_lease_lost(layer):
    cancelled = False
    began = time.monotonic()
    with pytest.raises(LeaseLost, match="could not be renewed in time"):
        async with layer.leader_lock("job", ttl=TTL) as lock:
            steal(layer)
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled = True
                assert lock.lost
                raise
    assert cancelled
    assert time.monotonic() - began < TTL
    assert holder(layer).session == "somebody else"
    assert asyncio.current_task().cancelling() == 0


async def test_a_store_that_is_away_ends_the_block_before_anyone_else_is_let_in(layer, monkeypatch):
    async def away(command: Any) -> Any:
        raise EngineUnavailable

    with pytest.raises(LeaseLost):
        async with layer.leader_lock("job", ttl=TTL):
            began = time.monotonic()
            monkeypatch.setattr(layer, "run", away)
            await asyncio.sleep(30)
    assert time.monotonic() - began <= 0.95 * TTL
    assert holder(layer) is not None


async def test_errors_of_the_block_pass_and_release(layer):
    with pytest.raises(KeyError):
        async with layer.leader_lock("job"):
            raise KeyError("x")
    assert holder(layer) is None


async def test_is_not_reentrant(layer):
    lock = layer.leader_lock("job")
    async with lock:
        with pytest.raises(RuntimeError, match="not reentrant"):
            await lock.__aenter__()


def test_works_in_sync_code(layer):
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        with layer.leader_lock("job", ttl=TTL):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 1
    assert holder(layer) is None


def test_sync_is_renewed(layer):
    with layer.leader_lock("job", ttl=TTL) as lock:
        time.sleep(2 * TTL)
        assert lock.held
        assert holder(layer).token == lock.token


def test_sync_sees_that_it_lost(layer):
    with pytest.raises(LeaseLost, match="block ended"), layer.leader_lock("job", ttl=TTL) as lock:
        steal(layer)
        deadline = time.monotonic() + 2
        while lock.held:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert lock.lost
        with pytest.raises(LeaseLost):
            lock.check()


def test_token_outside_the_block_raises(layer):
    with pytest.raises(LeaseLost, match="is not held"):
        _ = layer.leader_lock("job").token
