"""What every engine promises about delivery: subscribe, fence, plain members, flush, and the doors to it all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from livechannels.engines.base import (
    Fence,
    Flush,
    LeaseAcquire,
    LeaseGet,
    LeaseRelease,
    PlainAdd,
    PlainDrop,
    Publish,
    QueuePop,
    QueuePush,
    Read,
    RosterGet,
    RosterSet,
)
from livechannels.exceptions import LeaseLost
from livechannels.messages import topics
from tests.engines.conftest import Recorder
from tests.engines.test_contract_topics import KEEP, LIVE, eventually, publish


class TestSubscribe:
    async def test_messages_arrive_with_their_positions_in_order(self, store):
        heard = Recorder()
        await store.port(heard).subscribe(LIVE)
        senders = [store.port() for _ in range(2)]
        await asyncio.gather(*(port.run(Publish(LIVE, b"x", KEEP)) for port in senders for _ in range(100)))
        messages = await heard.received(200)
        assert [message.position.offset for message in messages] == list(range(1, 201))
        assert {message.topic for message in messages} == {LIVE}
        stored = (await store.run(Read(LIVE, reverse=True, limit=1))).entries[0]
        assert (messages[-1].time, messages[-1].body) == (stored.time, stored.body)

    async def test_a_message_without_retention_is_delivered_without_position(self, store):
        heard = Recorder()
        await store.port(heard).subscribe(LIVE)
        await store.run(Publish(LIVE, b"fleeting"))
        message = (await heard.received(1))[0]
        assert (message.position, message.body) == (None, b"fleeting")

    async def test_subscribed_means_the_very_next_message_arrives(self, store):
        sender = store.port()
        heard = Recorder()
        receiver = store.port(heard)
        for number in range(20):
            topic = topics.live(f"fresh/{number}")
            await receiver.subscribe(topic)
            await sender.run(Publish(topic, b"x"))
            await heard.received(number + 1)

    async def test_every_subscriber_hears_it_once_and_nobody_else(self, store):
        ears = [Recorder() for _ in range(3)]
        for ear in ears[:2]:
            await store.port(ear).subscribe(LIVE)
        bystander = store.port(ears[2])
        await bystander.subscribe(topics.live("other"))
        await publish(store, 3)
        await store.run(Publish(topics.live("other"), b"end"))
        assert [m.body for m in await ears[0].received(3)] == [b"1", b"2", b"3"]
        assert [m.body for m in await ears[1].received(3)] == [b"1", b"2", b"3"]
        assert [m.body for m in await ears[2].received(1)] == [b"end"]

    async def test_subscribing_twice_delivers_once(self, store):
        heard = Recorder()
        port = store.port(heard)
        await port.subscribe(LIVE)
        await port.subscribe(LIVE)
        await publish(store, 5)
        assert [m.body for m in await heard.received(5)] == [b"1", b"2", b"3", b"4", b"5"]

    async def test_unsubscribe_stops_it_some_time_soon(self, store):
        heard = Recorder()
        port = store.port(heard)
        await port.subscribe(LIVE)
        port.unsubscribe(LIVE)

        async def silent():
            before = len(heard.messages)
            await store.run(Publish(LIVE, b"x"))
            await asyncio.sleep(0.05)
            return len(heard.messages) == before

        await eventually(silent, "silence after unsubscribe")

    async def test_unsubscribe_and_subscribe_again_at_once_hears(self, store):
        heard = Recorder()
        port = store.port(heard)
        for number in range(20):
            await port.subscribe(LIVE)
            await store.run(Publish(LIVE, b"%d" % number))
            await heard.received(number + 1)
            port.unsubscribe(LIVE)
        assert [m.body for m in heard.messages] == [b"%d" % number for number in range(20)]

    async def test_a_closed_port_hears_nothing(self, store):
        heard = Recorder()
        port = store.engine().port(heard, "leaving")
        await port.subscribe(LIVE)
        await port.close()
        other = Recorder()
        await store.port(other).subscribe(LIVE)
        await publish(store, 1)
        await other.received(1)
        assert heard.messages == []


class TestFence:
    async def test_only_the_holder_publishes(self, store):
        grant = await store.run(LeaseAcquire(LIVE, "session-a", "node-a", 30))
        good = Fence("session-a", grant.token)
        assert (await store.run(Publish(LIVE, b"good", KEEP, fence=good))).position.offset == 1
        heard = Recorder()
        await store.port(heard).subscribe(LIVE)
        for bad in (
            Fence("session-b", grant.token), Fence("session-a", grant.token - 1), Fence("session-a", grant.token + 1),
        ):  # fmt: skip
            with pytest.raises(LeaseLost):
                await store.run(Publish(LIVE, b"bad", KEEP, fence=bad))
        await store.run(Publish(LIVE, b"good", KEEP, fence=good))
        assert [message.body for message in await heard.received(1)] == [b"good"]
        assert [entry.body for entry in (await store.run(Read(LIVE))).entries] == [b"good", b"good"]

    async def test_without_any_lease_it_is_refused(self, store):
        with pytest.raises(LeaseLost):
            await store.run(Publish(LIVE, b"x", KEEP, fence=Fence("s", 1)))
        assert (await store.run(Read(LIVE))).entries == []

    async def test_an_expired_lease_does_not_publish(self, store):
        grant = await store.run(LeaseAcquire(LIVE, "s", "n", 0.2))

        async def expired():
            return await store.run(LeaseGet(LIVE)) is None

        await eventually(expired, "an expired lease")
        with pytest.raises(LeaseLost):
            await store.run(Publish(LIVE, b"late", KEEP, fence=Fence("s", grant.token)))

    async def test_a_released_lease_does_not_publish(self, store):
        grant = await store.run(LeaseAcquire(LIVE, "s", "n", 30))
        await store.run(LeaseRelease(LIVE, "s", grant.token))
        with pytest.raises(LeaseLost):
            await store.run(Publish(LIVE, b"late", KEEP, fence=Fence("s", grant.token)))

    async def test_a_fence_without_retention_is_checked_too(self, store):
        with pytest.raises(LeaseLost):
            await store.run(Publish(LIVE, b"x", fence=Fence("s", 1)))

    async def test_a_refused_publish_leaves_its_idempotency_key_free(self, store):
        with pytest.raises(LeaseLost):
            await store.run(Publish(LIVE, b"x", KEEP, fence=Fence("s", 1), key="k"))
        grant = await store.run(LeaseAcquire(LIVE, "s", "n", 30))
        done = await store.run(Publish(LIVE, b"x", KEEP, fence=Fence("s", grant.token), key="k"))
        assert done.repeated is False
        assert done.position.offset == 1


class TestPlainMembers:
    GROUP = topics.group("room")

    async def test_publish_names_the_plain_members(self, store):
        assert (await store.run(Publish(self.GROUP, b"x", KEEP))).plain == []
        await store.run(PlainAdd(self.GROUP, "worker-a", 60))
        await store.run(PlainAdd(self.GROUP, "worker-b", 60))
        await store.run(PlainAdd(self.GROUP, "worker-a", 60))
        assert sorted((await store.run(Publish(self.GROUP, b"x", KEEP))).plain) == ["worker-a", "worker-b"]
        await store.run(PlainDrop(self.GROUP, "worker-a"))
        await store.run(PlainDrop(self.GROUP, "stranger"))
        assert (await store.run(Publish(self.GROUP, b"x", KEEP))).plain == ["worker-b"]

    async def test_also_for_messages_that_are_not_kept(self, store):
        await store.run(PlainAdd(self.GROUP, "worker-a", 60))
        assert (await store.run(Publish(self.GROUP, b"x"))).plain == ["worker-a"]

    async def test_membership_ends_with_its_ttl_unless_renewed(self, store):
        await store.run(PlainAdd(self.GROUP, "short", 0.3))
        await store.run(PlainAdd(self.GROUP, "long", 60))

        async def only_long():
            return (await store.run(Publish(self.GROUP, b"x"))).plain == ["long"]

        await eventually(only_long, "an expired member")

    async def test_members_of_one_group_are_not_members_of_another(self, store):
        await store.run(PlainAdd(self.GROUP, "worker", 60))
        assert (await store.run(Publish(topics.group("other"), b"x"))).plain == []


class TestFlush:
    async def test_it_empties_groups_inboxes_and_queues_and_nothing_else(self, store):
        group, inbox, queue = topics.group("g"), topics.inbox("n"), topics.queue("q")
        for topic in (group, inbox, LIVE):
            await publish(store, 2, topic)
        await store.run(QueuePush(queue, b"x", 10, 60))
        await store.run(PlainAdd(group, "worker", 60))
        await store.run(RosterSet(topics.presence("c"), "me", b"v", 60))
        grant = await store.run(LeaseAcquire(LIVE, "s", "n", 30))
        await store.run(Flush())
        assert (await store.run(Read(group))).entries == []
        assert (await store.run(Read(inbox))).entries == []
        assert await store.run(QueuePop(queue, 10)) == []
        assert (await store.run(Publish(group, b"x"))).plain == []
        assert len((await store.run(Read(LIVE))).entries) == 2
        assert await store.run(RosterGet(topics.presence("c"))) == {"me": b"v"}
        assert (await store.run(LeaseGet(LIVE))).session == "s"
        assert (await store.run(Publish(LIVE, b"x", KEEP, fence=Fence("s", grant.token)))).position.offset == 3

    async def test_a_prefix_that_starts_alike_is_left_alone(self, store):
        neighbour = store.port(prefix=store.prefix + "2")
        await neighbour.run(Publish(topics.group("g"), b"x", KEEP))
        await neighbour.run(QueuePush(topics.queue("q"), b"x", 10, 60))
        await store.port().run(Flush())
        assert len((await neighbour.run(Read(topics.group("g")))).entries) == 1
        assert await neighbour.run(QueuePop(topics.queue("q"))) == [b"x"]


class TestDoors:
    """The same commands from a loop without a port, from sync code, from threads."""

    async def test_prefixes_share_nothing(self, store):
        heard = Recorder()
        stranger = store.port(heard, prefix=store.prefix + "x")
        await stranger.subscribe(LIVE)
        await publish(store, 2)
        assert (await stranger.run(Read(LIVE))).entries == []
        await stranger.run(Publish(LIVE, b"own"))
        assert [message.body for message in await heard.received(1)] == [b"own"]

    async def test_run_sync_from_a_thread_and_from_many(self, store):
        heard = Recorder()
        await store.port(heard).subscribe(LIVE)
        engine = store.engine()
        offsets: list[int] = []

        def work() -> None:
            for _ in range(20):
                offsets.append(engine.run_sync(Publish(LIVE, b"x", KEEP)).position.offset)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        await heard.received(80)
        for thread in threads:
            thread.join(10)
        assert sorted(offsets) == list(range(1, 81))
        assert [message.position.offset for message in heard.messages] == list(range(1, 81))

    async def test_run_detached_from_loops_in_sequence(self, store):
        heard = Recorder()
        await store.port(heard).subscribe(LIVE)
        engine = store.engine()

        def work() -> list[int]:
            return [asyncio.run(engine.run_detached(Publish(LIVE, b"x", KEEP))).position.offset for _ in range(10)]

        assert await asyncio.to_thread(work) == list(range(1, 11))
        await heard.received(10)

    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_a_loop_that_ended_without_goodbye_disturbs_nobody(self, store):
        engine = store.engine()

        async def vanish() -> None:
            await engine.port(Recorder(), "vanished").subscribe(LIVE)

        def loop_that_forgets_to_close() -> None:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(vanish())
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        await asyncio.to_thread(loop_that_forgets_to_close)
        heard = Recorder()
        alive = engine.port(heard, "alive")
        await alive.subscribe(LIVE)
        await publish(store, 3)
        assert [message.body for message in await heard.received(3)] == [b"1", b"2", b"3"]
        await alive.close()

    async def test_run_sync_raises_what_run_raises(self, store):
        engine = store.engine()
        with pytest.raises(LeaseLost):
            await asyncio.to_thread(engine.run_sync, Publish(LIVE, b"x", KEEP, fence=Fence("s", 1)))
        with pytest.raises(LeaseLost):
            await engine.run_detached(Publish(LIVE, b"x", KEEP, fence=Fence("s", 1)))

    async def test_describe_and_repr_tell_no_secrets(self, store):
        engine = store.engine()
        assert isinstance(engine.describe(), dict)
        assert engine.name in ("memory", "redis")
