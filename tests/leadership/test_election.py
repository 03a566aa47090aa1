from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from livechannels.engines.base import Command, LeaseAcquire, LeaseGet
from livechannels.engines.memory import MemoryEngine
from livechannels.exceptions import EngineUnavailable
from livechannels.leadership.election import Leadership, rank, wait
from livechannels.leadership.lease import Lease
from livechannels.messages import topics

T = TypeVar("T")

TTL = 0.6


class Cluster:
    """Nodes that share a store and hear each other; `alive` are those that may lead."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.buses: dict[str, Bus] = {}
        self.leaderships: list[Leadership] = []

    def node(self, name: str, ttl: float = TTL) -> tuple[Bus, Leadership]:
        bus = self.buses[name] = Bus(name, self)
        leadership = Leadership(bus, lambda: self.buses, ttl=ttl)
        self.leaderships.append(leadership)
        return bus, leadership

    async def leader(self, name: str) -> str:
        grant = await self.engine.run_detached(LeaseGet(topics.live(name)))
        return grant.holder if grant else ""


class Bus:
    def __init__(self, name: str, cluster: Cluster) -> None:
        self.id = name
        self.cut = False
        self.delay = 0.0
        self.ran: Counter[str] = Counter()
        self._cluster = cluster
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {}

    async def run(self, command: Command[T]) -> T:
        self.ran[type(command).__name__] += 1
        await asyncio.sleep(0)
        if self.cut:
            raise EngineUnavailable
        answer = await self._cluster.engine.run_detached(command)
        await asyncio.sleep(self.delay)
        return answer

    async def broadcast(self, kind: str, payload: dict[str, Any]) -> None:
        if self.cut:
            raise EngineUnavailable
        for bus in list(self._cluster.buses.values()):
            if kind in bus._handlers and not bus.cut:
                asyncio.get_running_loop().call_soon(bus._handlers[kind], payload)

    def on_control(self, kind: str, handler: Callable[[dict[str, Any]], None]) -> None:
        self._handlers[kind] = handler


@asynccontextmanager
async def cluster_of(*names: str, ttl: float = TTL) -> AsyncIterator[tuple[Cluster, list[Leadership]]]:
    cluster = Cluster()
    leaderships = [cluster.node(name, ttl)[1] for name in names]
    try:
        yield cluster, leaderships
    finally:
        for leadership in cluster.leaderships:
            await leadership.close()


async def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def stand(leadership: Leadership, name: str, ended: Callable[[Lease], None] = lambda lease: None) -> Any:
    return leadership.stand(name, topics.live(name), ended)


async def lead(leadership: Leadership, name: str, ended: Callable[[Lease], None] = lambda lease: None) -> Lease:
    lease = await asyncio.wait_for(stand(leadership, name, ended), 5)
    assert lease is not None
    return lease


async def test_one_of_three_leads_and_it_is_the_first_in_order():
    async with cluster_of("a", "b", "c") as (cluster, leaderships):
        futures = [stand(leadership, "s/x") for leadership in leaderships]
        done, _ = await asyncio.wait(futures, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.3)
        assert [future.done() for future in futures].count(True) == 1
        assert rank(await cluster.leader("s/x"), "abc", "s/x") == 0
        assert {leadership.leader("s/x") for leadership in leaderships} == {await cluster.leader("s/x")}
        assert done.pop().result().token > 0


async def test_a_lease_is_kept_by_renewing_it():
    async with cluster_of("a") as (cluster, [leadership]):
        lease = await lead(leadership, "s/x")
        await asyncio.sleep(3 * TTL)
        assert lease.trusted(time.monotonic())
        assert await cluster.leader("s/x") == "a"
        assert cluster.buses["a"].ran["LeaseAcquire"] == 1
        assert 6 <= cluster.buses["a"].ran["LeaseRenew"] <= 10


async def test_a_released_lease_is_taken_over_at_once_with_a_higher_token():
    async with cluster_of("a", "b", ttl=30) as (_, [first, second]):
        old = await lead(first, "s/x")
        waiting = stand(second, "s/x")
        await asyncio.sleep(0.2)
        assert not waiting.done()
        began = time.monotonic()
        await first.release([old], leaving=True)
        new = await asyncio.wait_for(waiting, 5)
        assert time.monotonic() - began < 0.5
        assert new.token > old.token
        assert old.ended == "released"


async def test_a_release_heard_of_while_asking_is_not_forgotten_over_an_older_answer():
    async with cluster_of("a", "b", ttl=30) as (cluster, [first, second]):
        old = await lead(first, "s/x")
        cluster.buses["b"].delay = 0.3
        waiting = stand(second, "s/x")
        await asyncio.sleep(0.2)
        await first.release([old], leaving=True)
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await asyncio.wait_for(waiting, 2)


async def test_a_dead_leader_is_replaced_when_its_lease_expires_and_not_before():
    async with cluster_of("a", "b") as (cluster, [_, second]):
        await cluster.engine.run_detached(LeaseAcquire(topics.live("s/x"), "dead", "a", TTL))
        began = time.monotonic()
        await lead(second, "s/x")
        assert TTL - 0.05 <= time.monotonic() - began <= TTL + 0.5
        assert cluster.buses["b"].ran["LeaseAcquire"] == 2


async def test_a_leader_that_cannot_renew_stops_before_the_store_lets_anyone_in():
    async with cluster_of("a", "b") as (cluster, [first, second]):
        ended = asyncio.get_running_loop().create_future()
        lease = await lead(first, "s/x", ended.set_result)
        waiting = stand(second, "s/x")
        await asyncio.sleep(TTL)
        cluster.buses["a"].cut = True
        cut = time.monotonic()
        assert await asyncio.wait_for(ended, 5) is lease
        stopped = time.monotonic()
        assert not waiting.done()
        assert stopped - cut < 0.9 * TTL
        assert "not renewed" in lease.ended
        assert list(first.leads) == []
        new = await asyncio.wait_for(waiting, 5)
        assert new.token > lease.token
        assert time.monotonic() - cut <= TTL + 0.5


async def test_a_leader_whose_lease_was_taken_learns_it_at_the_next_renewal():
    async with cluster_of("a") as (cluster, [leadership]):
        ended = asyncio.get_running_loop().create_future()
        lease = await lead(leadership, "s/x", ended.set_result)
        cluster.engine._store._leases[topics.live("s/x")].session = "somebody else"
        assert await asyncio.wait_for(ended, 5) is lease
        assert not lease.trusted(time.monotonic())


async def test_an_engine_that_comes_back_in_time_costs_nothing():
    async with cluster_of("a") as (cluster, [leadership]):
        lease = await lead(leadership, "s/x")
        cluster.buses["a"].cut = True
        await asyncio.sleep(0.3 * TTL)
        cluster.buses["a"].cut = False
        await asyncio.sleep(2 * TTL)
        assert not lease.ended


async def test_standing_survives_an_engine_that_is_away():
    async with cluster_of("a") as (cluster, [leadership]):
        cluster.buses["a"].cut = True
        waiting = stand(leadership, "s/x")
        await asyncio.sleep(0.3)
        assert not waiting.done()
        cluster.buses["a"].cut = False
        assert (await asyncio.wait_for(waiting, 5)).token


async def test_who_withdraws_gets_nothing_and_holds_nothing():
    async with cluster_of("a") as (cluster, [leadership]):
        waiting = stand(leadership, "s/x")
        await asyncio.sleep(0)
        leadership.withdraw("s/x")
        assert await waiting is None
        await asyncio.sleep(0.2)
        assert await cluster.leader("s/x") == ""


async def test_cannot_stand_twice_for_one_name():
    async with cluster_of("a") as (_, [leadership]):
        stand(leadership, "s/x")
        with pytest.raises(ValueError, match="already stands"):
            stand(leadership, "s/x")


async def test_a_thousand_streams_on_three_nodes_are_spread_and_renewed_in_batches():
    names = [f"s/{number}" for number in range(1000)]
    async with cluster_of("a", "b", "c", ttl=3) as (cluster, leaderships):
        for leadership in leaderships:
            for name in names:
                stand(leadership, name)
        async with asyncio.timeout(10):
            while sum(len(leadership.leads) for leadership in leaderships) < 1000:
                await asyncio.sleep(0.05)
        assert all(200 <= len(leadership.leads) <= 466 for leadership in leaderships)  # exact only on an idle machine
        await asyncio.sleep(1.2)
        for bus, leadership in zip(cluster.buses.values(), leaderships, strict=True):
            assert bus.ran["LeaseRenew"] in (len(leadership.leads), 2 * len(leadership.leads))


async def test_a_new_node_is_handed_its_share_and_no_more():
    names = [f"s/{number}" for number in range(60)]
    async with cluster_of("a", "b", ttl=30) as (cluster, leaderships):

        def hand_over(leadership: Leadership, name: str) -> Callable[[Lease], None]:
            async def move(lease: Lease) -> None:
                await leadership.release([lease])
                stand(leadership, name, hand_over(leadership, name))

            return lambda lease: moves.append(asyncio.create_task(move(lease)))

        def led() -> int:
            return sum(len(leadership.leads) for leadership in everyone)

        moves: list[asyncio.Task[None]] = []
        everyone = [*leaderships]
        for leadership in leaderships:
            for name in names:
                stand(leadership, name, hand_over(leadership, name))
        await eventually(lambda: led() == 60, "all are led")
        everyone.append(cluster.node("c", 30)[1])
        newcomer = everyone[-1]
        for name in names:
            stand(newcomer, name, hand_over(newcomer, name))
        await eventually(lambda: all(newcomer.leader(name) for name in names), "the newcomer knows who leads")
        assert len(newcomer.leads) == 0
        wanted = newcomer.balance()
        assert set(wanted) == {name for name in names if rank("c", "abc", name) == 0}
        await newcomer.ask_for(wanted)
        await eventually(lambda: moves and len(newcomer.leads) == len(moves) and led() == 60, "they were handed over")
        assert len(moves) > 10
        assert all(len(leadership.leads) >= 20 for leadership in leaderships)


async def test_close_releases_everything():
    async with cluster_of("a", "b", ttl=30) as (_, [first, second]):
        for number in range(10):
            await lead(first, f"s/{number}")
        waiting = [stand(second, f"s/{number}") for number in range(10)]
        await asyncio.sleep(0.1)
        await first.close()
        assert all(await asyncio.wait_for(asyncio.gather(*waiting), 1))


# Who goes first

NODES = ["a-1-x", "b-2-y", "c-3-z"]
NAMES = [f"source/host/{number}" for number in range(3000)]


def order(nodes: list[str], name: str) -> list[str]:
    return sorted(nodes, key=lambda node: rank(node, nodes, name))


def test_every_node_sees_the_same_order():
    for name in NAMES[:50]:
        assert sorted(rank(node, NODES, name) for node in NODES) == [0, 1, 2]
        assert order(NODES, name) == order(NODES[::-1], name)


def test_a_node_that_is_not_listed_has_the_rank_it_would_have():
    for name in NAMES[:50]:
        assert rank("a-1-x", NODES, name) == rank("a-1-x", NODES[1:], name)


def test_names_are_spread_evenly():
    led = Counter(order(NODES, name)[0] for name in NAMES)
    assert all(850 <= led[node] <= 1150 for node in NODES), led


def test_only_the_names_of_a_lost_node_move():
    for name in NAMES:
        before = order(NODES, name)
        assert order(NODES[1:], name) == [node for node in before if node != NODES[0]]


def test_holding_back_is_bounded():
    assert [wait(place) for place in (0, 1, 2)] == [0, 0.05, 0.1]
    assert wait(100) == wait(3) == pytest.approx(0.15)
