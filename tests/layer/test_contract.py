"""The channel layer contract of Channels, over both engines."""

from __future__ import annotations

import asyncio
import random
import re

import pytest
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

from livechannels.layer import LiveChannelLayer
from tests.layer.conftest import receive, receive_all, unread

BAD_NAMES = [
    "",
    "two words",
    "x" * 100,
    "sl/ash",
    "col:on",
    "öl",
    "a!b!c",
    "{curly}",
    "star*",
    b"bytes",
    7,
    None,
    ["l"],
]


class TestNames:
    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_a_bad_name_is_a_type_error_everywhere(self, layer, name):
        good = await layer.new_channel()
        for call in (
            layer.send(name, {"type": "x"}),
            layer.receive(name),
            layer.group_add("group", name),
            layer.group_discard("group", name),
            layer.group_add(name, good),
            layer.group_discard(name, good),
            layer.group_send(name, {"type": "x"}),
        ):
            with pytest.raises(TypeError):
                await asyncio.wait_for(call, 5)

    async def test_a_group_name_has_no_local_part(self, layer):
        with pytest.raises(TypeError):
            await layer.group_send("group!local", {"type": "x"})

    @pytest.mark.parametrize("name", ["a", "x" * 99, "A-b_c.d9", "prefix!local", "a!"])
    async def test_a_good_name_is_taken(self, layer, name):
        await layer.send(name, {"type": "x"})

    async def test_new_channels_are_unique_valid_and_local(self, layer):
        names = [await layer.new_channel() for _ in range(1000)]
        assert len(set(names)) == 1000
        for name in names:
            assert layer.require_valid_channel_name(name)
            assert name.count("!") == 1
            assert len(name) < 100

    async def test_new_channel_takes_a_prefix(self, layer):
        assert (await layer.new_channel(prefix="mine")).startswith("mine")
        for bad in ("two words", "a!b", "{curly}", "x" * 60):
            with pytest.raises(TypeError):
                await layer.new_channel(prefix=bad)

    async def test_new_channels_do_not_depend_on_the_random_seed(self, make_layer):
        first, second = make_layer(), make_layer()
        random.seed(1)
        one = [await first.new_channel() for _ in range(5)]
        random.seed(1)
        two = [await second.new_channel() for _ in range(5)]
        random.seed(1)
        three = [await first.new_channel() for _ in range(5)]
        assert len({*one, *two, *three}) == 15


class TestSurface:
    def test_it_is_a_base_channel_layer_with_both_extensions(self, layer):
        assert isinstance(layer, BaseChannelLayer)
        assert sorted(layer.extensions) == ["flush", "groups"]

    def test_attributes_projects_touch(self, make_layer):
        layer = make_layer(expiry=7, group_expiry=70, capacity=17, channel_capacity={"x*": 3})
        assert (layer.expiry, layer.group_expiry, layer.capacity) == (7, 70, 17)
        assert (layer.get_capacity("xy"), layer.get_capacity("y")) == (3, 17)
        assert issubclass(layer.ChannelFull, ChannelFull)
        assert issubclass(layer.MessageTooLarge, MessageTooLarge)
        assert isinstance(layer.client_prefix, str)

    def test_defaults(self, make_layer):
        layer = make_layer()
        assert (layer.expiry, layer.group_expiry, layer.capacity) == (60, 86400, 100)

    async def test_close_and_close_pools_may_be_called_at_any_time(self, layer):
        await layer.close()
        await layer.send("a", {"type": "x"})
        await layer.close_pools()
        await layer.close()

    async def test_after_close_it_works_again(self, layer):
        await layer.group_add("room", await layer.new_channel())
        await layer.close()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "again"})
        assert await receive(layer, channel) == {"type": "again"}


class TestMessages:
    EVERYTHING = {
        "type": "every.kind",
        "bytes": b"\x00\xff raw",
        "text": "Grüße \U0001f300 \x00",
        "ints": [0, -1, 2**63 - 1, -(2**63)],
        "float": 1.5,
        "list": [1, [2, [3, {"deep": [None, True, False]}]]],
        "dict": {"a": {"b": {"c": "d"}}, "": "empty key"},
        "none": None,
        "empty": [{}, [], "", b""],
    }

    @pytest.mark.parametrize("serializer", ["msgpack", "json"])
    async def test_every_type_survives(self, make_layer, serializer):
        layer = make_layer(serializer_format=serializer)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.send(channel, self.EVERYTHING)
        await layer.group_send("room", self.EVERYTHING)
        await layer.send("plain", self.EVERYTHING)
        assert await receive_all(layer, channel, 2) == [self.EVERYTHING] * 2
        assert await receive(layer, "plain") == self.EVERYTHING

    async def test_a_tuple_arrives_as_a_list(self, layer):
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "x", "pair": (1, (2, 3))})
        assert await receive(layer, channel) == {"type": "x", "pair": [1, [2, 3]]}

    @pytest.mark.parametrize("bad", ["text", b"bytes", None, 5, ["list"], ("type", "x")])
    async def test_only_dicts_are_messages(self, layer, bad):
        with pytest.raises((TypeError, AssertionError)):
            await layer.send("a", bad)
        with pytest.raises((TypeError, AssertionError)):
            await layer.group_send("a", bad)

    async def test_the_reserved_key_is_refused(self, layer):
        with pytest.raises((TypeError, ValueError, AssertionError)):
            await layer.send("a", {"type": "x", "__asgi_channel__": "b"})

    async def test_what_cannot_be_carried_is_an_error_for_the_sender_alone(self, layer):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        for send in (layer.send(channel, {"type": "x", "it": object()}), layer.group_send("room", {"it": object()})):
            with pytest.raises((TypeError, ValueError)):
                await send
        await layer.send(channel, {"type": "fine"})
        assert await receive(layer, channel) == {"type": "fine"}

    async def test_a_megabyte_is_carried(self, layer):
        message = {"type": "big", "text": "x" * (1024 * 1024)}
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.send(channel, message)
        await layer.group_send("room", message)
        await layer.send("plain", message)
        assert await receive_all(layer, channel, 2) == [message, message]
        assert await receive(layer, "plain") == message

    async def test_more_than_the_limit_is_message_too_large(self, make_layer):
        layer = make_layer(message_limit=2048)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        for send in (
            layer.send(channel, {"type": "big", "text": "x" * 4096}),
            layer.send("plain", {"type": "big", "text": "x" * 4096}),
            layer.group_send("room", {"type": "big", "text": "x" * 4096}),
        ):
            with pytest.raises(MessageTooLarge):
                await send
        assert await unread(layer, channel) == []

    async def test_the_sent_dict_is_neither_kept_nor_changed(self, layer):
        channel = await layer.new_channel()
        message = {"type": "x", "list": [1]}
        await layer.send(channel, message)
        assert message == {"type": "x", "list": [1]}
        message["list"].append(2)
        assert await receive(layer, channel) == {"type": "x", "list": [1]}


class TestChannels:
    async def test_send_then_receive_on_every_kind_of_channel(self, layer):
        for channel in (await layer.new_channel(), "plain-channel"):
            await layer.send(channel, {"type": "hello", "on": channel})
            assert await receive(layer, channel) == {"type": "hello", "on": channel}

    async def test_a_waiting_receive_is_woken(self, layer):
        for channel in (await layer.new_channel(), "plain-channel"):
            waiting = asyncio.ensure_future(receive(layer, channel))
            await asyncio.sleep(0.05)
            await layer.send(channel, {"type": "hello"})
            assert await waiting == {"type": "hello"}

    async def test_first_in_first_out(self, layer):
        for channel in (await layer.new_channel(), "plain-channel"):
            for number in range(80):
                await layer.send(channel, {"type": "x", "number": number})
            received = await receive_all(layer, channel, 80)
            assert [message["number"] for message in received] == list(range(80))

    async def test_channels_do_not_mix(self, layer):
        one, two = await layer.new_channel(), await layer.new_channel()
        await layer.send(two, {"type": "two"})
        await layer.send(one, {"type": "one"})
        assert await receive(layer, one) == {"type": "one"}
        assert await receive(layer, two) == {"type": "two"}
        assert await unread(layer, one) == []

    async def test_two_readers_of_a_plain_channel_share_it(self, layer):
        taken: list[int] = []

        async def read():
            while len(taken) < 60:
                taken.append((await receive(layer, "jobs", 5))["number"])

        readers = [asyncio.ensure_future(read()) for _ in range(3)]
        for number in range(60):
            await layer.send("jobs", {"type": "job", "number": number})
        while len(taken) < 60:
            await asyncio.sleep(0.01)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        assert sorted(taken) == list(range(60))

    async def test_a_busy_channel_does_not_starve_a_quiet_one(self, make_layer):
        layer = make_layer(capacity=2000)
        busy, quiet = await layer.new_channel(), await layer.new_channel()
        for number in range(1000):
            await layer.send(busy, {"type": "x", "number": number})
        await layer.send(quiet, {"type": "now"})
        assert await receive(layer, quiet, 2) == {"type": "now"}


class TestCapacity:
    @pytest.mark.parametrize("kind", ["plain", "local"])
    async def test_a_full_channel_raises_channel_full_and_keeps_the_oldest(self, make_layer, kind):
        layer = make_layer(capacity=3)
        channel = "plain" if kind == "plain" else await layer.new_channel()
        for number in range(3):
            await layer.send(channel, {"type": "x", "number": number})
        for number in range(3, 5):
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"type": "x", "number": number})
        assert [message["number"] for message in await receive_all(layer, channel, 3)] == [0, 1, 2]
        await layer.send(channel, {"type": "room again"})
        assert await receive(layer, channel) == {"type": "room again"}

    async def test_channel_capacity_globs_and_regexes_first_match_wins(self, make_layer):
        layer = make_layer(
            capacity=5, channel_capacity={"tiny": 1, "big.*": 9, re.compile(r"^regex\.\d+$"): 2, "regex.*": 4}
        )
        for channel, capacity in (("tiny", 1), ("big.one", 9), ("regex.7", 2), ("regex.x", 4), ("other", 5)):
            for _ in range(capacity):
                await layer.send(channel, {"type": "x"})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"type": "x"})

    async def test_channel_capacity_applies_to_full_names_of_local_channels(self, make_layer):
        layer = make_layer(capacity=5, channel_capacity={"*!*": 2})
        channel = await layer.new_channel()
        for _ in range(2):
            await layer.send(channel, {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send(channel, {"type": "x"})

    async def test_capacity_is_per_channel_not_per_process(self, make_layer):
        layer = make_layer(capacity=3)
        slow, sibling = await layer.new_channel(), await layer.new_channel()
        for _ in range(3):
            await layer.send(slow, {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send(slow, {"type": "x"})
        await layer.send(sibling, {"type": "fine"})
        assert await receive(layer, sibling) == {"type": "fine"}

    async def test_group_send_never_raises_channel_full(self, make_layer, caplog):
        layer = make_layer(capacity=3)
        slow, quick = await layer.new_channel(), await layer.new_channel()
        for channel in (slow, quick):
            await layer.group_add("room", channel)
        got = []
        for number in range(10):
            await layer.group_send("room", {"type": "x", "number": number})
            got.append((await receive(layer, quick))["number"])
        assert got == list(range(10))
        assert [message["number"] for message in await receive_all(layer, slow, 3)] == [0, 1, 2]
        assert await unread(layer, slow) == []


class TestExpiry:
    async def test_unread_messages_vanish(self, make_layer):
        layer = make_layer(expiry=0.3)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_add("room", "plain-member")
        for target in (channel, "plain"):
            await layer.send(target, {"type": "stale"})
        await layer.group_send("room", {"type": "stale"})
        await asyncio.sleep(0.5)
        for target in (channel, "plain", "plain-member"):
            assert await unread(layer, target) == []

    async def test_expired_messages_leave_room(self, make_layer):
        layer = make_layer(expiry=0.3, capacity=2)
        for channel in (await layer.new_channel(), "plain"):
            for _ in range(2):
                await layer.send(channel, {"type": "stale"})
            await asyncio.sleep(0.5)
            await layer.send(channel, {"type": "fresh"})
            assert await receive(layer, channel) == {"type": "fresh"}

    async def test_group_expiry_ends_a_plain_membership_unless_renewed(self, make_layer):
        layer = make_layer(group_expiry=1)
        await layer.group_add("room", "forgotten")
        await layer.group_add("room", "renewed")
        await asyncio.sleep(0.7)
        await layer.group_add("room", "renewed")
        await asyncio.sleep(0.7)
        await layer.group_send("room", {"type": "x"})
        assert await unread(layer, "renewed") == [{"type": "x"}]
        assert await unread(layer, "forgotten") == []


class TestGroups:
    async def test_all_members_hear_it_once_each(self, layer):
        members = [await layer.new_channel() for _ in range(5)]
        for member in members:
            await layer.group_add("room", member)
        await layer.group_add("room", "plain-member")
        await layer.group_send("room", {"type": "hello"})
        for member in (*members, "plain-member"):
            assert await unread(layer, member) == [{"type": "hello"}]

    async def test_adding_twice_delivers_once(self, layer):
        channel = await layer.new_channel()
        for member in (channel, "plain"):
            await layer.group_add("room", member)
            await layer.group_add("room", member)
        await layer.group_send("room", {"type": "once"})
        assert await unread(layer, channel) == [{"type": "once"}]
        assert await unread(layer, "plain") == [{"type": "once"}]

    async def test_discard_ends_it_and_is_silent_about_strangers(self, layer):
        channel, stays = await layer.new_channel(), await layer.new_channel()
        for member in (channel, stays, "plain"):
            await layer.group_add("room", member)
        await layer.group_discard("room", channel)
        await layer.group_discard("room", "plain")
        await layer.group_discard("room", channel)
        await layer.group_discard("nowhere", channel)
        await layer.group_send("room", {"type": "x"})
        assert await unread(layer, stays) == [{"type": "x"}]
        assert await unread(layer, channel) == []
        assert await unread(layer, "plain") == []

    async def test_a_group_without_members_is_nothing(self, layer):
        await layer.group_send("empty", {"type": "x"})

    async def test_groups_do_not_mix_and_a_channel_may_be_in_several(self, layer):
        both, one = await layer.new_channel(), await layer.new_channel()
        await layer.group_add("red", both)
        await layer.group_add("blue", both)
        await layer.group_add("red", one)
        await layer.group_send("red", {"type": "red"})
        await layer.group_send("blue", {"type": "blue"})
        assert await unread(layer, both) == [{"type": "red"}, {"type": "blue"}]
        assert await unread(layer, one) == [{"type": "red"}]

    async def test_group_and_direct_messages_keep_their_order(self, layer):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        for number in range(40):
            await layer.group_send("room", {"type": "x", "number": number})
        assert [message["number"] for message in await receive_all(layer, channel, 40)] == list(range(40))

    async def test_every_member_sees_concurrent_sends_in_the_same_order(self, make_layer):
        layer = make_layer(capacity=500)
        members = [await layer.new_channel() for _ in range(3)]
        for member in members:
            await layer.group_add("room", member)
        await asyncio.gather(*(layer.group_send("room", {"type": "x", "number": n}) for n in range(100)))
        seen = [[m["number"] for m in await receive_all(layer, member, 100)] for member in members]
        assert seen[0] == seen[1] == seen[2]
        assert sorted(seen[0]) == list(range(100))

    async def test_the_only_member_leaving_and_coming_back_at_once(self, layer):
        channel = await layer.new_channel()
        for number in range(10):
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "x", "number": number})
            assert await receive(layer, channel) == {"type": "x", "number": number}
            await layer.group_discard("room", channel)
        await layer.group_send("room", {"type": "missed"})
        assert await unread(layer, channel) == []

    async def test_joining_does_not_replay_what_was_before(self, layer):
        first = await layer.new_channel()
        await layer.group_add("room", first)
        await layer.group_send("room", {"type": "before"})
        assert await receive(layer, first) == {"type": "before"}
        late = await layer.new_channel()
        await layer.group_add("room", late)
        await layer.group_send("room", {"type": "after"})
        assert await unread(layer, late) == [{"type": "after"}]
        assert await unread(layer, first) == [{"type": "after"}]

    async def test_leaving_and_coming_back_does_not_replay_either(self, layer):
        channel, stays = await layer.new_channel(), await layer.new_channel()
        await layer.group_add("room", stays)
        await layer.group_add("room", channel)
        await layer.group_discard("room", channel)
        await layer.group_send("room", {"type": "missed"})
        assert await receive(layer, stays) == {"type": "missed"}
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "heard"})
        assert await unread(layer, channel) == [{"type": "heard"}]


class TestFlush:
    async def test_it_empties_everything_of_this_layer(self, layer):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_add("room", "plain-member")
        await layer.send(channel, {"type": "x"})
        await layer.send("plain", {"type": "x"})
        await layer.group_send("room", {"type": "x"})
        await layer.flush()
        await layer.group_send("room", {"type": "after"})
        for target in (channel, "plain", "plain-member"):
            assert await unread(layer, target) == []

    async def test_after_it_everything_works(self, layer):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.flush()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "again"})
        assert await receive(layer, channel) == {"type": "again"}

    async def test_of_an_unused_layer_is_nothing(self, layer):
        await layer.flush()


class TestIsolation:
    @pytest.mark.parametrize("depth", [1, 2, 4])
    async def test_a_handler_that_edits_its_message_changes_no_other_copy(self, layer, depth):
        members = [await layer.new_channel() for _ in range(3)]
        for member in members:
            await layer.group_add("room", member)

        def nested(level):
            return {"value": 1, "list": [1, 2], **({"inner": nested(level - 1)} if level else {})}

        message = {"type": "x", "tree": nested(depth)}
        await layer.group_send("room", message)
        spoiled = await receive(layer, members[0])
        node = spoiled["tree"]
        for _ in range(depth):
            node = node["inner"]
        node["value"] = 99
        node["list"].append(99)
        spoiled["type"] = "changed"
        spoiled["extra"] = True
        for member in members[1:]:
            assert await receive(layer, member) == {"type": "x", "tree": nested(depth)}

    async def test_the_senders_later_edits_change_nothing(self, layer):
        member = await layer.new_channel()
        await layer.group_add("room", member)
        message = {"type": "x", "inner": {"list": [1]}}
        await layer.group_send("room", message)
        message["inner"]["list"].append(2)
        assert (await receive(layer, member))["inner"]["list"] == [1]


def test_the_constructor_does_no_io_and_needs_no_loop():
    layer = LiveChannelLayer(hosts=["redis://127.0.0.1:1/0"])
    assert layer.capacity == 100
