"""What every engine promises about topics: positions, history, reading, idempotency."""

from __future__ import annotations

import asyncio
import time

from livechannels.engines.base import Publish, Published, Read, Retention, Trim
from livechannels.messages import topics
from livechannels.messages.positions import START, Position, continues, recover
from tests.engines.conftest import Recorder, Store

KEEP = Retention(100, 60, 120)
LIVE = topics.live("stream/cpu")


async def publish(store: Store, count: int, topic: str = LIVE, keep: Retention | None = KEEP) -> list[Published]:
    return [await store.run(Publish(topic, b"%d" % number, keep)) for number in range(1, count + 1)]


async def eventually(condition, what: str, timeout: float = 5):
    """Ask again until `condition()`'s awaited value is true; for the passing of a store's own clock."""
    deadline = time.monotonic() + timeout
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"{what} not within {timeout} s"
        await asyncio.sleep(0.02)
    return value


class TestPositions:
    async def test_offsets_count_from_one_within_one_epoch(self, store):
        positions = [done.position for done in await publish(store, 5)]
        assert [position.offset for position in positions] == [1, 2, 3, 4, 5]
        assert len({position.epoch for position in positions}) == 1
        assert positions[0].epoch

    async def test_without_retention_there_is_no_position_and_nothing_is_kept(self, store):
        done = await store.run(Publish(LIVE, b"gone"))
        assert done == Published(None, [])
        assert (await store.run(Read(LIVE))).entries == []

    async def test_topics_count_on_their_own(self, store):
        first, second = topics.live("a"), topics.live("b")
        await publish(store, 3, first)
        assert (await publish(store, 1, second))[0].position.offset == 1
        assert (await store.run(Read(first))).position.offset == 3

    async def test_live_channel_group_and_inbox_of_one_name_are_different_topics(self, store):
        for topic in (topics.live("same"), topics.group("same"), topics.inbox("same")):
            assert (await publish(store, 1, topic))[0].position.offset == 1

    async def test_every_legal_name_is_its_own_topic(self, store):
        names = ["a", "a/b", "a:b", "a=b", "a#b", "a@b", "a$b", "a,b", "a-b", "a.b", "a_b", "A/B", "x" * 255]
        for name in names:
            await store.run(Publish(topics.live(name), name.encode(), KEEP))
        for name in names:
            found = await store.run(Read(topics.live(name)))
            assert [entry.body for entry in found.entries] == [name.encode()]

    async def test_any_bytes_survive(self, store):
        body = bytes(range(256)) * 20 + b"\r\n$-1\r\n"
        await store.run(Publish(LIVE, body, KEEP))
        assert (await store.run(Read(LIVE))).entries[0].body == body

    async def test_a_megabyte_survives_reading_and_delivery(self, store):
        heard = Recorder()
        await store.port(heard).subscribe(LIVE)
        body = b"x" * (1024 * 1024 + 17)
        await store.run(Publish(LIVE, body, KEEP))
        assert (await heard.received(1))[0].body == body
        assert (await store.run(Read(LIVE))).entries[0].body == body

    async def test_concurrent_publishers_get_every_offset_once(self, store):
        ports = [store.port() for _ in range(3)]
        done = await asyncio.gather(*(port.run(Publish(LIVE, b"x", KEEP)) for port in ports for _ in range(30)))
        assert sorted(one.position.offset for one in done) == list(range(1, 91))
        assert len({one.position.epoch for one in done}) == 1

    async def test_entries_carry_the_servers_time_in_milliseconds(self, store):
        await publish(store, 2)
        first, second = (await store.run(Read(LIVE))).entries
        assert abs(first.time - time.time() * 1000) < 5000
        assert first.time <= second.time


class TestHistory:
    async def test_size_bounds_it_and_the_newest_stay(self, store):
        await publish(store, 12, keep=Retention(5, 60, 120))
        found = await store.run(Read(LIVE))
        assert [entry.offset for entry in found.entries] == [8, 9, 10, 11, 12]
        assert found.position.offset == 12

    async def test_entries_older_than_max_age_are_left_out(self, store):
        keep = Retention(100, 30, 60)
        await publish(store, 2, keep=keep)
        await asyncio.sleep(0.4)
        await store.run(Publish(LIVE, b"young", keep))
        found = await store.run(Read(LIVE, max_age=0.3))
        assert [entry.body for entry in found.entries] == [b"young"]
        assert found.position.offset == 3
        assert len((await store.run(Read(LIVE, max_age=25))).entries) == 3

    async def test_history_ends_with_its_ttl_and_the_position_outlives_it(self, store):
        done = (await publish(store, 3, keep=Retention(100, 0.3, 60)))[-1]

        async def emptied():
            found = await store.run(Read(LIVE, max_age=0.3))
            return None if found.entries else found

        found = await eventually(emptied, "an expired history")
        assert found.position == done.position
        judged = recover(Position(done.position.epoch, 1), found)
        assert (judged.recovered, judged.reason) == (False, "trimmed")
        assert recover(done.position, found).recovered

    async def test_the_position_ends_with_meta_ttl_and_the_next_epoch_differs(self, store):
        before = (await publish(store, 3, keep=Retention(100, 0.2, 0.3)))[-1].position

        async def forgotten():
            return (await store.run(Read(LIVE))).position != before

        await eventually(forgotten, "a forgotten position")
        after = (await publish(store, 1))[0].position
        assert after.epoch != before.epoch
        assert not recover(before, await store.run(Read(LIVE, since=before))).recovered

    async def test_byte_limit_bounds_it_by_size(self, store):
        for _ in range(10):
            await store.run(Publish(topics.inbox("n"), b"x" * 10_000, KEEP, byte_limit=50_000))
        found = await store.run(Read(topics.inbox("n")))
        assert found.position.offset == 10
        assert found.entries[-1].offset == 10
        assert 0 < sum(len(entry.body) for entry in found.entries) <= 50_000

    async def test_trim_forgets_up_to_an_offset_and_keeps_the_position(self, store):
        await publish(store, 5)
        await store.run(Trim(LIVE, 3))
        found = await store.run(Read(LIVE))
        assert [entry.offset for entry in found.entries] == [4, 5]
        assert found.position.offset == 5
        await store.run(Trim(LIVE, 5))
        emptied = await store.run(Read(LIVE))
        assert (emptied.entries, emptied.position) == ([], found.position)
        assert (await publish(store, 1))[0].position.offset == 6


class TestRead:
    async def test_everything_after_a_position(self, store):
        epoch = (await publish(store, 5))[0].position.epoch
        found = await store.run(Read(LIVE, since=Position(epoch, 2)))
        assert [(entry.offset, entry.body) for entry in found.entries] == [(3, b"3"), (4, b"4"), (5, b"5")]
        assert found.position == Position(epoch, 5)

    async def test_limit_takes_the_oldest_and_with_reverse_the_newest(self, store):
        await publish(store, 5)
        assert [e.offset for e in (await store.run(Read(LIVE, limit=2))).entries] == [1, 2]
        assert [e.offset for e in (await store.run(Read(LIVE, limit=2, reverse=True))).entries] == [5, 4]
        assert [e.offset for e in (await store.run(Read(LIVE, reverse=True))).entries] == [5, 4, 3, 2, 1]

    async def test_reverse_pages_back_from_the_last_entry_of_a_page(self, store):
        position = (await publish(store, 5))[-1].position
        pages, since = [], position._replace(offset=0)
        while page := (await store.run(Read(LIVE, since=since, limit=2, reverse=True))).entries:
            pages.append([entry.offset for entry in page])
            since = position._replace(offset=page[-1].offset)
        assert pages == [[5, 4], [3, 2], [1]]

    async def test_limit_zero_reads_the_position_only(self, store):
        done = await publish(store, 2)
        found = await store.run(Read(LIVE, limit=0))
        assert (found.entries, found.position) == ([], done[-1].position)

    async def test_a_missing_topic_is_not_made_by_reading(self, store):
        found = await store.run(Read(LIVE))
        assert found.entries == []
        assert found.position.offset == 0
        assert store.stored() == [], "reading left a key"

    async def test_create_makes_it_begin_now_and_the_reader_misses_nothing(self, store):
        begun = (await store.run(Read(LIVE, limit=0, create=True, renew=60))).position
        assert begun.epoch
        assert begun.offset == 0
        done = await publish(store, 2)
        assert [one.position for one in done] == [Position(begun.epoch, 1), Position(begun.epoch, 2)]
        judged = recover(begun, await store.run(Read(LIVE, since=begun)))
        assert judged.recovered
        assert len(judged.entries) == 2

    async def test_create_again_changes_nothing(self, store):
        first = await store.run(Read(LIVE, limit=0, create=True, renew=60))
        assert await store.run(Read(LIVE, limit=0, create=True, renew=60)) == first

    async def test_renew_keeps_an_idle_position_alive(self, store):
        begun = (await store.run(Read(LIVE, limit=0, create=True, renew=0.5))).position
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            found = await store.run(Read(LIVE, limit=0, renew=0.5))
            assert found.position == begun

    async def test_a_position_ahead_of_the_top_does_not_go_on(self, store):
        epoch = (await publish(store, 2))[0].position.epoch
        ahead = Position(epoch, 9)
        found = await store.run(Read(LIVE, since=ahead))
        assert not continues(ahead, found.position, found.epochs)

    async def test_an_unknown_epoch_does_not_go_on(self, store):
        await publish(store, 2)
        stranger = Position("nobody", 1)
        judged = recover(stranger, await store.run(Read(LIVE, since=stranger)))
        assert (judged.recovered, judged.reason) == (False, "restart")

    async def test_start_reads_everything(self, store):
        await publish(store, 3)
        judged = recover(START, await store.run(Read(LIVE, since=START)))
        assert judged.recovered
        assert len(judged.entries) == 3


class TestIdempotency:
    async def test_a_repeated_key_stores_once_and_returns_the_first_position(self, store):
        heard = Recorder()
        await store.port(heard).subscribe(LIVE)
        first = await store.run(Publish(LIVE, b"one", KEEP, key="k1"))
        await store.run(Publish(LIVE, b"between", KEEP))
        again = await store.port().run(Publish(LIVE, b"two", KEEP, key="k1"))
        assert (first.repeated, again.repeated) == (False, True)
        assert again.position == first.position
        await store.run(Publish(LIVE, b"last", KEEP))
        assert [message.body for message in await heard.received(3)] == [b"one", b"between", b"last"]
        assert [entry.body for entry in (await store.run(Read(LIVE))).entries] == [b"one", b"between", b"last"]

    async def test_keys_are_per_topic(self, store):
        other = topics.live("other")
        await store.run(Publish(LIVE, b"a", KEEP, key="k"))
        done = await store.run(Publish(other, b"b", KEEP, key="k"))
        assert done.repeated is False
        assert done.position.offset == 1

    async def test_concurrent_repeats_store_once(self, store):
        ports = [store.port() for _ in range(3)]
        done = await asyncio.gather(*(port.run(Publish(LIVE, b"x", KEEP, key="same")) for port in ports * 10))
        assert {one.position.offset for one in done} == {1}
        assert sorted(one.repeated for one in done) == [False] + [True] * 29


class TestTrim:
    async def test_a_trim_of_an_epoch_that_is_over_forgets_nothing(self, store):
        """A node that has not heard of a restart yet tidies up; what came since is not its to forget."""
        position = (await publish(store, 3))[-1].position
        await store.run(Trim(LIVE, 3, "an earlier one"))
        assert [entry.offset for entry in (await store.run(Read(LIVE))).entries] == [1, 2, 3]
        await store.run(Trim(LIVE, 2, position.epoch))
        assert [entry.offset for entry in (await store.run(Read(LIVE))).entries] == [3]
