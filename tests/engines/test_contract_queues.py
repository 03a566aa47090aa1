"""What every engine promises about plain queues, rosters and leases."""

from __future__ import annotations

import asyncio
import collections

from livechannels.engines.base import (
    Flush,
    LeaseAcquire,
    LeaseGet,
    LeaseRelease,
    LeaseRenew,
    QueuePop,
    QueuePush,
    QueueReturn,
    RosterDrop,
    RosterGet,
    RosterSet,
)
from livechannels.messages import topics
from tests.engines.conftest import Recorder
from tests.engines.test_contract_topics import eventually

QUEUE = topics.queue("jobs")
ROSTER = topics.presence("room")
LEASE = topics.live("source/cpu")


class TestQueue:
    async def test_first_in_first_out(self, store):
        for number in range(5):
            assert await store.run(QueuePush(QUEUE, b"%d" % number, 100, 60)) is True
        assert await store.run(QueuePop(QUEUE)) == [b"0"]
        assert await store.run(QueuePop(QUEUE, 10)) == [b"1", b"2", b"3", b"4"]
        assert await store.run(QueuePop(QUEUE)) == []

    async def test_equal_bodies_are_different_items(self, store):
        for _ in range(3):
            await store.run(QueuePush(QUEUE, b"same", 100, 60))
        assert await store.run(QueuePop(QUEUE, 10)) == [b"same"] * 3

    async def test_competing_readers_share_it_without_repeats(self, store):
        ports = [store.port() for _ in range(4)]
        await asyncio.gather(*(ports[0].run(QueuePush(QUEUE, b"%d" % n, 1000, 60)) for n in range(200)))

        async def drain(port, limit):
            taken = []
            while items := await port.run(QueuePop(QUEUE, limit)):
                taken += items
            return taken

        taken = await asyncio.gather(*(drain(port, limit) for limit, port in enumerate(ports, 1)))
        counts = collections.Counter(item for items in taken for item in items)
        assert counts == collections.Counter(b"%d" % n for n in range(200))

    async def test_capacity_counts_unread_items(self, store):
        assert [await store.run(QueuePush(QUEUE, b"x", 3, 60)) for _ in range(5)] == [True, True, True, False, False]
        await store.run(QueuePop(QUEUE))
        assert await store.run(QueuePush(QUEUE, b"y", 3, 60)) is True
        assert await store.run(QueuePop(QUEUE, 10)) == [b"x", b"x", b"y"]

    async def test_expired_items_are_neither_read_nor_counted(self, store):
        for _ in range(3):
            await store.run(QueuePush(QUEUE, b"old", 3, 0.3))
        assert await store.run(QueuePush(QUEUE, b"no room", 3, 60)) is False
        await asyncio.sleep(0.4)
        assert await store.run(QueuePush(QUEUE, b"new", 3, 60)) is True
        assert await store.run(QueuePop(QUEUE, 10)) == [b"new"]

    async def test_an_expired_item_behind_a_fresh_one_is_left_out_too(self, store):
        await store.run(QueuePush(QUEUE, b"fresh", 2, 60))
        await store.run(QueuePush(QUEUE, b"stale", 2, 0.2))
        await asyncio.sleep(0.3)
        assert await store.run(QueuePush(QUEUE, b"newer", 2, 60)) is True
        assert await store.run(QueuePop(QUEUE, 10)) == [b"fresh", b"newer"]

    async def test_returned_items_come_first_again_in_their_order(self, store):
        for number in range(5):
            await store.run(QueuePush(QUEUE, b"%d" % number, 100, 60))
        taken = await store.run(QueuePop(QUEUE, 3))
        await store.run(QueueReturn(QUEUE, taken[1:], 60))
        assert await store.run(QueuePop(QUEUE, 10)) == [b"1", b"2", b"3", b"4"]

    async def test_a_push_wakes_readers(self, store):
        heard = Recorder()
        await store.port(heard).subscribe(QUEUE)
        await store.run(QueuePush(QUEUE, b"x", 100, 60))
        await heard.received(1)
        assert heard.messages[0].topic == QUEUE

    async def test_a_return_wakes_readers(self, store):
        await store.run(QueuePush(QUEUE, b"x", 100, 60))
        taken = await store.run(QueuePop(QUEUE))
        heard = Recorder()
        await store.port(heard).subscribe(QUEUE)
        await store.run(QueueReturn(QUEUE, taken, 60))
        await heard.received(1)

    async def test_an_emptied_queue_is_forgotten(self, store):
        """What stays is known to readers and senders that ask again: for a minute, and `flush` removes it at once."""
        await store.run(QueuePush(QUEUE, b"x", 100, 60))
        await store.run(QueuePop(QUEUE))
        assert [key for key in store.stored() if key.endswith(":q")] == []
        assert all(0 < life <= 60 for life in store.lives().values())
        await store.run(Flush())
        assert store.stored() == []


class TestRoster:
    async def test_entering_refreshing_leaving(self, store):
        assert await store.run(RosterSet(ROSTER, "a", b"1", 60)) is True
        assert await store.run(RosterSet(ROSTER, "a", b"2", 60)) is False
        assert await store.run(RosterSet(ROSTER, "b", b"3", 60)) is True
        assert await store.run(RosterGet(ROSTER)) == {"a": b"2", "b": b"3"}
        assert await store.run(RosterDrop(ROSTER, "a")) is True
        assert await store.run(RosterDrop(ROSTER, "a")) is False
        assert await store.run(RosterGet(ROSTER)) == {"b": b"3"}

    async def test_expired_members_are_gone_and_new_again(self, store):
        await store.run(RosterSet(ROSTER, "short", b"1", 0.3))
        await store.run(RosterSet(ROSTER, "long", b"2", 60))

        async def struck_off():
            return await store.run(RosterGet(ROSTER)) == {"long": b"2"}

        await eventually(struck_off, "an expired member")
        assert await store.run(RosterDrop(ROSTER, "short")) is False
        assert await store.run(RosterSet(ROSTER, "short", b"1", 60)) is True

    async def test_refreshing_keeps_a_member(self, store):
        await store.run(RosterSet(ROSTER, "a", b"1", 0.5))
        for _ in range(8):
            await asyncio.sleep(0.1)
            assert await store.run(RosterSet(ROSTER, "a", b"1", 0.5)) is False

    async def test_an_unknown_roster_is_empty(self, store):
        assert await store.run(RosterGet(topics.presence("nowhere"))) == {}
        assert await store.run(RosterDrop(topics.presence("nowhere"), "a")) is False


class TestLease:
    async def test_one_holder_at_a_time(self, store):
        mine = await store.run(LeaseAcquire(LEASE, "session-a", "node-a", 10))
        assert mine.token
        assert (mine.session, mine.holder) == ("session-a", "node-a")
        assert 9 < mine.remaining <= 10
        theirs = await store.port().run(LeaseAcquire(LEASE, "session-b", "node-b", 10))
        assert (theirs.token, theirs.session, theirs.holder) == (None, "session-a", "node-a")
        assert 9 < theirs.remaining <= 10

    async def test_of_many_at_once_one_gets_it(self, store):
        ports = [store.port() for _ in range(3)]
        grants = await asyncio.gather(
            *(port.run(LeaseAcquire(LEASE, f"s{n}", "n", 10)) for n, port in enumerate(ports * 5))
        )
        winners = [grant for grant in grants if grant.token is not None]
        assert len(winners) == 1
        assert {grant.session for grant in grants} == {winners[0].session}

    async def test_the_holder_asking_again_still_holds_it(self, store):
        first = await store.run(LeaseAcquire(LEASE, "s", "n", 10))
        again = await store.run(LeaseAcquire(LEASE, "s", "n", 10))
        assert again.token == first.token

    async def test_tokens_only_rise_over_release_and_expiry(self, store):
        tokens = []
        for number in range(3):
            grant = await store.run(LeaseAcquire(LEASE, f"s{number}", "n", 10))
            tokens.append(grant.token)
            assert await store.run(LeaseRelease(LEASE, f"s{number}", grant.token)) is True
        tokens.append((await store.run(LeaseAcquire(LEASE, "short", "n", 0.2))).token)

        async def taken_over():
            return (await store.run(LeaseAcquire(LEASE, "next", "n", 10))).token

        tokens.append(await eventually(taken_over, "an expired lease"))
        assert tokens == sorted(set(tokens))

    async def test_it_expires_by_the_stores_clock(self, store):
        grant = await store.run(LeaseAcquire(LEASE, "a", "n", 0.4))
        refused = await store.run(LeaseAcquire(LEASE, "b", "n", 10))
        assert refused.token is None
        assert 0 < refused.remaining <= 0.4
        await asyncio.sleep(refused.remaining + 0.05)
        taken = await store.run(LeaseAcquire(LEASE, "b", "n", 10))
        assert taken.token is not None
        assert taken.token > grant.token
        assert await store.run(LeaseRenew(LEASE, "a", grant.token, 10)) is False
        assert await store.run(LeaseRelease(LEASE, "a", grant.token)) is False
        assert (await store.run(LeaseGet(LEASE))).session == "b"

    async def test_renewing_extends_it(self, store):
        grant = await store.run(LeaseAcquire(LEASE, "a", "n", 0.5))
        for _ in range(8):
            await asyncio.sleep(0.1)
            assert await store.run(LeaseRenew(LEASE, "a", grant.token, 0.5)) is True
        assert (await store.run(LeaseGet(LEASE))).since == (grant.since)

    async def test_renewing_an_expired_lease_fails(self, store):
        grant = await store.run(LeaseAcquire(LEASE, "a", "n", 0.2))
        await asyncio.sleep(0.3)
        assert await store.run(LeaseRenew(LEASE, "a", grant.token, 10)) is False
        assert await store.run(LeaseGet(LEASE)) is None

    async def test_only_session_and_token_together_renew_or_release(self, store):
        grant = await store.run(LeaseAcquire(LEASE, "a", "n", 10))
        for session, token in (("b", grant.token), ("a", grant.token + 1), ("a", grant.token - 1)):
            assert await store.run(LeaseRenew(LEASE, session, token, 10)) is False
            assert await store.run(LeaseRelease(LEASE, session, token)) is False
        assert await store.run(LeaseRenew(LEASE, "a", grant.token, 10)) is True

    async def test_get_shows_the_holder_to_everyone(self, store):
        assert await store.run(LeaseGet(LEASE)) is None
        grant = await store.run(LeaseAcquire(LEASE, "a", "node-a", 10))
        seen = await store.port().run(LeaseGet(LEASE))
        assert (seen.session, seen.holder, seen.since) == ("a", "node-a", grant.since)
        assert 9 < seen.remaining <= 10
        await store.run(LeaseRelease(LEASE, "a", grant.token))
        assert await store.run(LeaseGet(LEASE)) is None
