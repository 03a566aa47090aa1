from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.test import override_settings

from livechannels import LiveChannel, live_path
from livechannels.clients.connections import Connections
from livechannels.layer import LiveChannelLayer
from livechannels.rpc import rpc
from livechannels.testing import live_test_layer
from tests.browsers import Browser, User

allowed: set[Any] = set()


class Room(LiveChannel):
    history_size, history_ttl = 50, 300
    presence = join_leave = True

    async def can_subscribe(self, user: Any) -> bool:
        return True

    async def can_publish(self, user: Any, data: Any) -> bool:
        return data != "forbidden"

    async def on_publish(self, user: Any, data: Any) -> Any:
        return {"cleaned": True} if data == "dirty" else data


class Closed(LiveChannel):
    async def can_subscribe(self, user: Any) -> bool:
        return getattr(user, "pk", None) in allowed


class Gauge(Room):
    presence = join_leave = False
    coalesce = True


class News(Room):
    recovery = "cache"
    history_size = 1


CHANNELS = [
    live_path("room/<path:name>", Room),
    live_path("quiet/<path:name>", Room, presence=False, join_leave=False),
    live_path("plain/<path:name>", Room, presence=False, join_leave=False, history_size=0),
    live_path("closed/<path:name>", Closed),
    live_path("gauge/<path:name>", Gauge),
    live_path("news/<path:name>", News),
    live_path("local/<path:name>", Room, scope="node"),
    live_path("#<int:user>", Room),
]


@rpc("wait")
async def wait(user: Any, data: Any) -> str:
    await asyncio.sleep(data)
    return "done"


def configured(**limits: Any) -> override_settings:
    return override_settings(LIVECHANNELS={"CHANNELS": CHANNELS, "LIMITS": limits})


Open = Callable[..., Browser]


@pytest.fixture
async def layer() -> AsyncIterator[LiveChannelLayer]:
    allowed.clear()
    with configured(), live_test_layer() as layer:
        yield layer
        await layer.node().close()


@pytest.fixture
async def browse(layer: LiveChannelLayer) -> AsyncIterator[Open]:
    browsers: list[Browser] = []

    def browse(user: Any = None, **options: Any) -> Browser:
        browsers.append(Browser(layer, user, **options))
        return browsers[-1]

    yield browse
    for browser in browsers:
        await browser.gone()
    node = layer.node()
    assert len(Connections.of(node)) == 0
    assert node.hub.counts() == {}


class TestConnect:
    async def test_reply(self, browse: Open) -> None:
        reply = await browse().connect()
        assert reply["client"] and reply["version"] and reply["session"] and reply["node"]
        assert (reply["ping"], reply["pong"]) == (25, True)
        assert abs(reply["time"] / 1000 - time.time()) < 60

    @pytest.mark.parametrize(
        "frame",
        [
            '{"id":1,"subscribe":{"channel":"room/a"}}',
            "{}",
            "",
            "nonsense",
            '{"id":1,"connect":{}}\n{"id":2,"connect":{}}',
        ],
    )  # fmt: skip
    async def test_anything_else_first_is_a_bad_request(self, browse: Open, frame: str) -> None:
        browser = browse()
        await browser.session.receive(frame)
        assert await browser.closed() == (3501, "bad request")
        push = await browser.push("disconnect")
        assert push["disconnect"] == {"code": 3501, "reason": "bad request", "reconnect": False}

    async def test_deadline(self, browse: Open) -> None:
        with configured(connect_deadline=0.01):
            assert await browse().closed() == (3502, "stale")

    async def test_tokens_are_not_taken_for_granted(self, browse: Open) -> None:
        browser = browse()
        await browser.say({"connect": {"token": "x"}})
        assert (await browser.closed())[0] == 3500

    async def test_connections_of_a_user(self, browse: Open) -> None:
        with configured(connections_per_user=1):
            first = browse(User(1))
            await first.connect()
            second, other = browse(User(1)), browse(User(2))
            await second.say({"connect": {}})
            assert (await second.closed())[0] == 3504
            await other.connect()
            await first.gone()
            await browse(User(1)).connect()

    async def test_connections_in_all(self, browse: Open) -> None:
        with configured(connections=1):
            await browse().connect()
            assert (await browse().closed())[0] == 3504

    async def test_frames_that_are_too_big(self, browse: Open) -> None:
        with configured(message_size=100):
            for frame in ("x" * 101, "ü" * 51, b"x" * 101):
                browser = browse()
                await browser.session.receive(frame)
                assert await browser.closed() == (1009, "message size limit")
                assert browser.messages == []
            fits = browse()
            await fits.connect(name="x" * 50)


class TestSubscribe:
    async def test_order_of_one_frame(self, browse: Open) -> None:
        browser = browse()
        await browser.say(
            {"connect": {}},
            {"subscribe": {"channel": "room/a"}},
            {"publish": {"channel": "room/a", "data": 1}},
            {"unsubscribe": {"channel": "room/a"}},
        )
        await browser.reply(4)
        order = [
            message.get("id") or next(key for key in message["push"] if key != "channel")
            for message in browser.messages
        ]
        assert order[:2] == [1, 2]
        assert [one for one in order if one in (1, 2, 3)] == [1, 2, 3]

    async def test_reply_precedes_every_push_and_nothing_is_missed(self, browse: Open, layer: LiveChannelLayer) -> None:
        await layer.publish("quiet/a", 0)

        async def publish() -> None:
            for number in range(1, 30):
                await layer.publish("quiet/a", number)
                await asyncio.sleep(0)

        browser = browse()
        await browser.connect()
        publishing = asyncio.create_task(publish())
        await asyncio.sleep(0)
        (number,) = await browser.say({"subscribe": {"channel": "quiet/a", "recover": True, "offset": 0}})
        await publishing
        top = (await layer.history("quiet/a", limit=0)).position.offset
        reply = await browser.reply(number)
        recovered = [one["offset"] for one in reply["subscribe"].get("publications", [])]
        await browser.until(lambda: len(recovered) + len(browser.messages) == top, "all publications")
        live = [message["push"]["pub"]["offset"] for message in browser.messages]
        assert recovered + live == list(range(1, top + 1))

    async def test_errors(self, browse: Open) -> None:
        browser = browse()
        await browser.connect()
        await browser.subscribe("room/a")
        codes = {
            "nowhere": 102, "closed/x": 103, "room/a": 105, "room/ü": 107, "": 107, "room/" + "x" * 255: 107,
        }  # fmt: skip
        for channel, code in codes.items():
            assert (await browser.ask("subscribe", channel=channel))["error"]["code"] == code
        for arguments in ({"type": 1}, {"token": "x"}, {"tf": {"op": "and"}}):
            assert (await browser.ask("subscribe", channel="room/b", **arguments))["error"]["code"] == 108

    async def test_number_of_channels(self, browse: Open) -> None:
        with configured(channels_per_client=2):
            browser = browse()
            await browser.connect()
            await browser.subscribe("room/a")
            await browser.subscribe("room/b")
            assert (await browser.ask("subscribe", channel="room/c"))["error"]["code"] == 106
            await browser.ask("unsubscribe", channel="room/a")
            await browser.subscribe("room/c")

    async def test_without_history_there_is_no_position(self, browse: Open) -> None:
        browser = browse()
        await browser.connect()
        assert await browser.subscribe("plain/a") == {}

    async def test_unsubscribe_ends_it(self, browse: Open, layer: LiveChannelLayer) -> None:
        browser = browse()
        await browser.connect()
        await browser.subscribe("quiet/a")
        assert (await browser.ask("unsubscribe", channel="quiet/a"))["unsubscribe"] == {}
        assert (await browser.ask("unsubscribe", channel="quiet/never"))["unsubscribe"] == {}
        await layer.publish("quiet/a", 1)
        await browser.ask("rpc", method="wait", data=0)
        assert browser.messages == []


class TestRecovery:
    @pytest.fixture
    async def epoch(self, layer: LiveChannelLayer) -> str:
        for number in range(1, 11):
            await layer.publish("quiet/a", number)
        return (await layer.history("quiet/a", limit=0)).position.epoch

    async def recover(self, browser: Browser, **since: Any) -> dict[str, Any]:
        await browser.connect()
        return await browser.ask("subscribe", channel="quiet/a", recover=True, **since)

    async def test_complete(self, browse: Open, epoch: str) -> None:
        reply = (await self.recover(browse(), epoch=epoch, offset=7))["subscribe"]
        assert (reply["recovered"], reply["was_recovering"]) == (True, True)
        assert (reply["offset"], reply["epoch"]) == (7, epoch), "clients count up from the offset they asked with"
        assert [one["data"] for one in reply["publications"]] == [8, 9, 10]

    async def test_nothing_missed(self, browse: Open, epoch: str) -> None:
        reply = (await self.recover(browse(), epoch=epoch, offset=10))["subscribe"]
        assert reply["recovered"] and "publications" not in reply and reply["offset"] == 10

    @pytest.mark.parametrize("since", [{"epoch": "_", "offset": 0}, {"epoch": "other", "offset": 9}, {"offset": 99}])
    async def test_foreign_position(self, browse: Open, epoch: str, since: dict[str, Any]) -> None:
        reply = (await self.recover(browse(), **{"epoch": epoch, **since}))["subscribe"]
        assert "recovered" not in reply and "publications" not in reply
        assert (reply["offset"], reply["epoch"], reply["was_recovering"]) == (10, epoch, True)

    async def test_more_than_the_limit_is_not_recovered(self, browse: Open, epoch: str) -> None:
        with configured(recover_publications=2):
            reply = (await self.recover(browse(), epoch=epoch, offset=7))["subscribe"]
            assert "recovered" not in reply and "publications" not in reply and reply["offset"] == 10

    async def test_flag_two_refuses_instead(self, browse: Open, epoch: str, layer: LiveChannelLayer) -> None:
        browser = browse()
        reply = await self.recover(browser, epoch="other", offset=7, flag=2)
        assert reply["error"]["code"] == 112
        assert layer.node().hub.counts() == {}
        assert (await browser.subscribe("quiet/a", recover=True, epoch=epoch, offset=7, flag=2))["recovered"]

    async def test_cache_gives_the_newest(self, browse: Open, layer: LiveChannelLayer) -> None:
        for text in ("one", "two", "three"):
            await layer.publish("news/a", text)
        browser = browse()
        await browser.connect()
        reply = await browser.subscribe("news/a", recover=True)
        assert reply["recovered"] and [one["data"] for one in reply["publications"]] == ["three"]


class TestCalls:
    async def test_publish(self, browse: Open) -> None:
        writer, reader = browse(User(7, "bob")), browse()
        for browser in (writer, reader):
            await browser.connect()
            await browser.subscribe("quiet/a")
        assert (await writer.ask("publish", channel="quiet/a", data={"n": 1}))["publish"] == {}
        got = (await reader.push("pub"))["pub"]
        assert (got["offset"], got["data"], got["info"]["user"]) == (1, {"n": 1}, "7")
        assert got["info"]["conn_info"] == {"name": "bob"}
        await writer.ask("publish", channel="quiet/a", data="dirty")
        assert (await reader.push("pub"))["pub"]["data"] == {"cleaned": True}

    async def test_publish_errors(self, browse: Open) -> None:
        browser = browse()
        await browser.connect()
        assert (await browser.ask("publish", channel="quiet/a", data="forbidden"))["error"]["code"] == 103
        assert (await browser.ask("publish", channel="closed/a", data=1))["error"]["code"] == 103
        assert (await browser.ask("publish", channel="quiet/a"))["error"]["code"] == 107
        assert (await browser.ask("publish", channel="quiet/a", data=1, type=1))["error"]["code"] == 108
        assert (await browser.ask("publish", channel="local/a", data=1))["error"]["code"] == 108

    async def test_presence(self, browse: Open, layer: LiveChannelLayer) -> None:
        first, second = browse(User(1)), browse()
        client = (await first.connect())["client"]
        await first.subscribe("room/a")
        assert (await first.push("join"))["join"]["info"]["client"] == client
        await second.connect()
        await second.subscribe("room/a")
        presence = (await first.ask("presence", channel="room/a"))["presence"]["presence"]
        assert presence[client] == {"user": "1", "client": client, "conn_info": {"name": "ann"}}
        stats = await first.ask("presence_stats", channel="room/a")
        assert stats["presence_stats"] == {"num_clients": 2, "num_users": 2}
        await first.gone()
        assert (await second.push("leave"))["leave"]["info"]["client"] == client
        assert list(await layer.presence("room/a")) == [second.session.id]
        await second.ask("unsubscribe", channel="room/a")
        assert await layer.presence("room/a") == {}
        assert (await second.ask("presence", channel="quiet/a"))["error"]["code"] == 108
        assert (await second.ask("presence", channel="closed/a"))["error"]["code"] == 108

    async def test_history(self, browse: Open, layer: LiveChannelLayer) -> None:
        browser = browse()
        await browser.connect()
        for number in range(5):
            await layer.publish("quiet/a", number)
        with configured(history_publications=3):
            limited = browse()
            await limited.connect()
            reply = (await limited.ask("history", channel="quiet/a", limit=-1))["history"]
            assert [one["offset"] for one in reply["publications"]] == [1, 2, 3]
        position = (await browser.ask("history", channel="quiet/a"))["history"]
        assert (position["publications"], position["offset"]) == ([], 5)
        foreign = await browser.ask("history", channel="quiet/a", limit=1, since={"offset": 1, "epoch": "x"})
        assert foreign["error"]["code"] == 112
        assert (await browser.ask("history", channel="plain/a", limit=1))["error"]["code"] == 108

    async def test_refresh(self, browse: Open) -> None:
        browser = browse()
        await browser.connect()
        await browser.subscribe("quiet/a")
        assert (await browser.ask("refresh"))["refresh"]["client"] == browser.session.id
        assert (await browser.ask("refresh", token="x"))["error"]["code"] == 108
        assert (await browser.ask("sub_refresh", channel="quiet/a"))["sub_refresh"] == {}
        assert (await browser.ask("sub_refresh", channel="quiet/b"))["error"]["code"] == 103

    async def test_commands_per_second(self, browse: Open) -> None:
        with configured(commands_per_second=3):
            browser = browse()
            await browser.connect()
            replies = [await browser.ask("rpc", method="wait", data=0) for _ in range(4)]
            assert [reply.get("error", {}).get("code") for reply in replies] == [None, None, None, 111]
            assert replies[-1]["error"]["temporary"]
            await browser.session.receive('{"send":{"data":1}}')
            assert (await browser.closed())[0] == 3013

    async def test_a_slow_call_holds_up_neither_pongs_nor_the_end(self, browse: Open, layer: LiveChannelLayer) -> None:
        with configured(ping_interval=0.02, pong_timeout=0.2):
            browser = browse()
            await browser.connect()
            await browser.subscribe("room/a")
            await browser.say({"rpc": {"method": "wait", "data": 60}})
            await browser.until(lambda: browser.frames.count("{}") > 3, "pings")
            await browser.gone()
            assert await layer.presence("room/a") == {}

    async def test_a_flood_is_taken_no_faster_than_it_is_served(self, browse: Open) -> None:
        browser = browse()
        await browser.connect()
        taken = 0

        async def flood() -> None:
            nonlocal taken
            for _ in range(200):
                await browser.say({"rpc": {"method": "wait", "data": 0.001}})
                taken += 1

        flooding = asyncio.create_task(flood())
        await browser.reply(3)
        assert taken <= 70
        await flooding
        await browser.reply(201)


class TestServerSide:
    async def test_subscribed_with_the_connect_reply(self, browse: Open, layer: LiveChannelLayer) -> None:
        await layer.publish("quiet/a", 1)
        browser = browse(User(1), personal=["#1", "quiet/a", "#1"])
        reply = await browser.connect()
        assert list(reply["subs"]) == ["#1", "quiet/a"]
        epoch = reply["subs"]["quiet/a"]["epoch"]
        assert (await browser.ask("subscribe", channel="#1"))["error"]["code"] == 105
        await browser.gone()
        await layer.publish("quiet/a", 2)
        again = browse(User(1), personal=["quiet/a"])
        subs = {"quiet/a": {"recover": True, "offset": 1, "epoch": epoch}, "room/uninvited": {"recover": True}}
        reply = await again.connect(subs=subs)
        assert list(reply["subs"]) == ["quiet/a"]
        assert [one["data"] for one in reply["subs"]["quiet/a"]["publications"]] == [2]
        await layer.publish("quiet/a", 3)
        assert (await again.push("pub"))["pub"]["data"] == 3

    async def test_too_many(self, browse: Open) -> None:
        with configured(channels_per_client=1):
            browser = browse(personal=["room/a", "room/b"])
            await browser.say({"connect": {}})
            assert (await browser.closed())[0] == 3505

    async def test_an_undeclared_one_is_the_servers_fault(self, browse: Open, caplog: Any) -> None:
        browser = browse(personal=["nowhere"])
        await browser.say({"connect": {}})
        assert (await browser.closed())[0] == 3004
        assert "could not be connected" in caplog.text


class TestEndings:
    async def test_no_pong(self, browse: Open) -> None:
        with configured(ping_interval=0.02, pong_timeout=0.02):
            browser = browse()
            browser.answers = False
            await browser.connect()
            assert await browser.closed() == (3012, "no pong")

    async def test_pongs_keep_it(self, browse: Open) -> None:
        with configured(ping_interval=0.02, pong_timeout=0.1):
            browser = browse()
            await browser.connect()
            await browser.until(lambda: browser.frames.count("{}") >= 10, "ten pings")
            assert browser.closed_with is None

    async def test_slow(self, browse: Open, layer: LiveChannelLayer) -> None:
        with configured(outbox_bytes=5000, window_bytes=2000):
            slow, other = browse(), browse()
            slow.answers = False
            for browser in (slow, other):
                await browser.connect()
                await browser.subscribe("quiet/a")
            for _ in range(20):
                await layer.publish("quiet/a", "x" * 500)
                await asyncio.sleep(0)
            assert await slow.closed() == (3008, "slow")
            assert (await slow.push("disconnect"))["disconnect"]["reconnect"] is True
            assert len("".join(slow.frames)) < 2000 + 5000
            offsets = [(await other.push("pub"))["pub"]["offset"] for _ in range(20)]
            assert offsets == list(range(1, 21))

    async def test_slow_but_only_the_newest_counts(self, browse: Open, layer: LiveChannelLayer) -> None:
        with configured(outbox_bytes=5000, window_bytes=2000):
            browser = browse()
            browser.answers = False
            await browser.connect()
            await browser.subscribe("gauge/a")
            for number in range(100):
                await layer.publish("gauge/a", {"n": number, "x": "x" * 500})
                await asyncio.sleep(0)
            assert browser.closed_with is None
            browser.answers = True
            browser.pong()
            await browser.until(
                lambda: browser.messages and browser.messages[-1]["push"]["pub"]["data"]["n"] == 99, "the newest"
            )
            assert len(browser.messages) < 30

    async def test_a_client_that_never_reads(self, browse: Open, layer: LiveChannelLayer) -> None:
        with configured(outbox_bytes=5000):
            browser = browse()
            await browser.connect()
            await browser.subscribe("quiet/a")
            browser.reads.clear()
            for _ in range(20):
                await layer.publish("quiet/a", "x" * 500)
                await asyncio.sleep(0)
            assert (await browser.closed())[0] == 3008
            assert layer.node().hub.counts() == {}

    async def test_insufficient_state(self, browse: Open, layer: LiveChannelLayer) -> None:
        browser = browse(personal=["quiet/mine"])
        await browser.connect()
        await browser.subscribe("quiet/a")
        hub = layer.node().hub
        hub._live["quiet/a"]._dismiss_all("restart")
        push = await browser.push("unsubscribe")
        assert push == {"channel": "quiet/a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
        await browser.subscribe("quiet/a")
        hub._live["quiet/mine"]._dismiss_all("trimmed")
        assert await browser.closed() == (3010, "insufficient state")

    async def test_revoked(self, browse: Open, layer: LiveChannelLayer) -> None:
        browser, other = browse(User(1)), browse(User(2))
        for one in (browser, other):
            await one.connect()
            await one.subscribe("room/a")
        await layer.broadcast("unsubscribe", {"user": "1", "channel": "room/a"})
        push = await browser.push("unsubscribe")
        assert push["unsubscribe"] == {"code": 2000, "reason": "server unsubscribe"}
        assert (await other.push("leave"))["leave"]["info"]["user"] == "1"
        await layer.publish("room/a", 1)
        assert (await other.push("pub"))["pub"]["data"] == 1
        assert not any("pub" in message.get("push", ()) for message in browser.messages)
        await browser.subscribe("room/a")

    async def test_rights_are_looked_at_again(self, browse: Open, layer: LiveChannelLayer) -> None:
        allowed.add(1)
        browser = browse(User(1))
        await browser.connect()
        await browser.subscribe("closed/a")
        await layer.broadcast("recheck", {"user": "1"})
        await browser.ask("rpc", method="wait", data=0)
        assert browser.messages == []
        allowed.clear()
        await layer.broadcast("recheck", {})
        assert (await browser.push("unsubscribe"))["unsubscribe"] == {"code": 2000, "reason": "permission denied"}

    async def test_rights_are_looked_at_by_themselves(self, browse: Open) -> None:
        allowed.add(1)
        with configured(recheck_interval=0.02):
            browser = browse(User(1))
            await browser.connect()
            await browser.subscribe("closed/a")
            allowed.clear()
            await browser.push("unsubscribe")

    async def test_a_failing_database_ends_nothing(self, browse: Open, monkeypatch: Any, caplog: Any) -> None:
        browser = browse(User(1))
        await browser.connect()
        await browser.subscribe("room/a")

        async def fails() -> bool:
            raise RuntimeError("database is away")

        monkeypatch.setattr(type(browser.session.identity), "reload", lambda self: fails())
        browser.session.recheck()
        await browser.ask("rpc", method="wait", data=0)
        assert browser.closed_with is None
        assert "database is away" in caplog.text
        browser.session.identity.expires_at = time.time() - 1
        browser.session.recheck()
        assert (await browser.closed())[0] == 3503

    async def test_disconnected(self, browse: Open, layer: LiveChannelLayer) -> None:
        browser, other = browse(User(1)), browse(User(2))
        await browser.connect()
        await other.connect()
        await layer.broadcast("disconnect", {"user": "1", "code": 4501, "reason": "ü" * 100})
        code, reason = await browser.closed()
        assert code == 4501 and len(reason.encode()) <= 123
        assert (await browser.push("disconnect"))["disconnect"]["reconnect"] is False
        await other.ask("rpc", method="wait", data=0)

    async def test_shutdown(self, browse: Open, layer: LiveChannelLayer) -> None:
        browsers = [browse() for _ in range(3)]
        for browser in browsers:
            await browser.connect()
            await browser.subscribe("room/a")
        await layer.node().close()
        for browser in browsers:
            assert await browser.closed() == (3001, "shutdown")
            assert (await browser.push("disconnect"))["disconnect"]["reconnect"] is True

    async def test_what_waits_is_sent_before_the_end(self, browse: Open, layer: LiveChannelLayer) -> None:
        browser = browse(User(1))
        await browser.connect()
        await browser.subscribe("quiet/a")
        await layer.publish("quiet/a", "last words")
        await layer.broadcast("disconnect", {"user": "1"})
        await browser.closed()
        kinds = [next(key for key in message["push"] if key != "channel") for message in browser.messages]
        assert kinds == ["pub", "disconnect"]

    async def test_after_the_end_nothing_is_taken(self, browse: Open) -> None:
        browser = browse()
        await browser.connect()
        await browser.session.receive("bad")
        await browser.closed()
        await browser.say({"rpc": {"method": "wait", "data": 0}})
        await browser.gone()
        await browser.gone()
        assert json.dumps(browser.messages).count("rpc") == 0
