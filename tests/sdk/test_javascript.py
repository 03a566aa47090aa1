"""centrifuge-js, unmodified, against real servers."""

from __future__ import annotations

import asyncio

import pytest

from tests.sdk.conftest import Start
from tests.sdk.javascript import JavaScript, Refused
from tests.sdk.servers import Server


class TestCommands:
    async def test_connect_and_subscribe_in_one_frame(self, server: Server, javascript: JavaScript, room: str) -> None:
        client = await javascript.client("a", server.ws)
        await client.begin(room)
        await client.begin("open/second")
        connected = await client.connect()
        assert connected["client"]
        subscribed = await client.event("subscribed", room)
        assert subscribed["recoverable"] and subscribed["positioned"] and not subscribed["wasRecovering"]
        await client.event("subscribed", "open/second")

    async def test_publish_reaches_every_subscriber_once_in_order(
        self, server: Server, javascript: JavaScript, room: str
    ) -> None:
        ann, bob = await javascript.client("a", server.ws), await javascript.client("b", server.ws)
        for client in (ann, bob):
            await client.connect()
            await client.subscribe(room)
        for number in range(50):
            await ann.call("publish", {"n": number}, channel=room)
        for client in (ann, bob):
            got = [await client.event("publication", room) for _ in range(50)]
            assert [one["data"]["n"] for one in got] == list(range(50))
            assert [one["offset"] for one in got] == list(range(1, 51))
            assert got[0]["info"]["client"]

    async def test_publication_from_django(self, server: Server, javascript: JavaScript, room: str) -> None:
        client = await javascript.client("a", server.ws)
        await client.connect()
        await client.subscribe(room)
        await server.call("apublish", channel=room, data={"text": "a\nb"}, tags={"kind": "note"})
        got = await client.event("publication", room)
        assert (got["data"], got["tags"]) == ({"text": "a\nb"}, {"kind": "note"})

    async def test_presence_join_and_leave(self, server: Server, javascript: JavaScript, room: str) -> None:
        ann = await javascript.client("a", server.ws, headers=await server.sign_in("ann"))
        bob = await javascript.client("b", server.ws, headers=await server.sign_in("bob"))
        await ann.connect()
        await ann.subscribe(room)
        own = await ann.event("join", room)
        assert own["info"]["connInfo"] == {"name": "ann"}
        await bob.connect()
        await bob.subscribe(room)
        join = await ann.event("join", room)
        assert join["info"]["connInfo"] == {"name": "bob"}
        present = await ann.call("presence", channel=room)
        assert sorted(client["connInfo"]["name"] for client in present["clients"].values()) == ["ann", "bob"]
        assert await ann.call("presenceStats", channel=room) == {"numClients": 2, "numUsers": 2}
        await bob.unsubscribe(room)
        leave = await ann.event("leave", room)
        assert leave["info"]["client"] == join["info"]["client"]
        await bob.subscribe(room)
        await ann.event("join", room)
        await bob.disconnect()
        await ann.event("leave", room)
        assert await ann.call("presenceStats", channel=room) == {"numClients": 1, "numUsers": 1}

    async def test_history_pages_both_ways(self, server: Server, javascript: JavaScript, room: str) -> None:
        client = await javascript.client("a", server.ws)
        await client.connect()
        await client.subscribe(room)
        for number in range(5):
            await client.call("publish", number, channel=room)
        top = await client.call("history", {"limit": 0}, channel=room)
        assert (top["publications"], top["offset"]) == ([], 5)
        everything = await client.call("history", {"limit": -1}, channel=room)
        assert [one["data"] for one in everything["publications"]] == [0, 1, 2, 3, 4]
        since = {"offset": 2, "epoch": top["epoch"]}
        page = await client.call("history", {"limit": 2, "since": since}, channel=room)
        assert [one["data"] for one in page["publications"]] == [2, 3]
        newest = await client.call("history", {"limit": 2, "reverse": True}, channel=room)
        assert [one["data"] for one in newest["publications"]] == [4, 3]
        with pytest.raises(Refused) as refused:
            await client.call("history", {"limit": 1, "since": {"offset": 2, "epoch": "gone"}}, channel=room)
        assert refused.value.code == 112

    async def test_rpc_and_messages(self, server: Server, javascript: JavaScript) -> None:
        client = await javascript.client("a", server.ws, headers=await server.sign_in("ann"))
        await client.connect()
        assert await client.call("rpc", "double", {"n": 21}) == {"data": {"user": "ann", "double": 42}}
        assert await client.call("rpc", "sync", None) == {"data": True}
        for method, code in {"nothing": 104, "refused": 404, "denied": 103, "broken": 100}.items():
            with pytest.raises(Refused) as refused:
                await client.call("rpc", method, {})
            assert refused.value.code == code
        await client.call("send", {"hello": 1})
        await client.call("rpc", "double", {"n": 1})
        assert {"hello": 1} in (await server.fetch("/facts"))["received"]

    async def test_errors(self, server: Server, javascript: JavaScript) -> None:
        client = await javascript.client("a", server.ws)
        await client.connect()
        for channel, code in {"nowhere/x": 102, "member/x": 103, "open/ü": 107}.items():
            await client.begin(channel)
            assert (await client.event("unsubscribed", channel))["code"] == code
        await client.subscribe("plain/x")
        for method in ("history", "presence"):
            with pytest.raises(Refused) as refused:
                await client.call(method, channel="plain/x")
            assert refused.value.code == 108
        headers = await server.sign_in("ann")
        reader = await javascript.client("r", server.ws, headers=headers)
        await reader.connect()
        await reader.subscribe("broadcast/x")
        with pytest.raises(Refused) as refused:
            await reader.call("publish", 1, channel="broadcast/x")
        assert refused.value.code == 103


class TestRecovery:
    async def test_nothing_is_missed_over_a_cut(self, server: Server, javascript: JavaScript, room: str) -> None:
        reader, writer = await javascript.client("r", server.ws), await javascript.client("w", server.ws)
        for client in (reader, writer):
            await client.connect()
            await client.subscribe(room)
        await writer.call("publish", 0, channel=room)
        await reader.event("publication", room)
        await reader.cut()
        for number in range(1, 11):
            await writer.call("publish", number, channel=room)
        again = await reader.event("subscribed", room)
        assert again["wasRecovering"] and again["recovered"]
        got = [await reader.event("publication", room) for _ in range(10)]
        assert [one["data"] for one in got] == list(range(1, 11))

    async def test_too_much_missed_is_said(self, server: Server, javascript: JavaScript) -> None:
        client = await javascript.client("a", server.ws)
        await client.connect()
        first = await client.subscribe("short/x")
        epoch = first["streamPosition"]["epoch"]
        await client.unsubscribe("short/x")
        for number in range(10):
            await server.call("apublish", channel="short/x", data=number)
        other = await javascript.client("b", server.ws)
        await other.connect()
        late = await other.subscribe("short/x", since={"offset": 1, "epoch": epoch})
        assert late["wasRecovering"] and not late["recovered"]
        assert late["streamPosition"]["offset"] == 10
        await server.call("apublish", channel="short/x", data="live")
        assert (await other.event("publication", "short/x"))["data"] == "live"
        foreign = await javascript.client("c", server.ws)
        await foreign.connect()
        assert not (await foreign.subscribe("short/x", since={"offset": 10, "epoch": "other"}))["recovered"]

    async def test_cache_mode_gives_the_newest(self, server: Server, javascript: JavaScript) -> None:
        headers = await server.sign_in("ann")
        for text in ("one", "two"):
            await server.call("apublish", channel="broadcast/news", data=text)
        client = await javascript.client("a", server.ws, headers=headers)
        await client.connect()
        subscribed = await client.subscribe("broadcast/news", since={"offset": 0, "epoch": ""})
        assert subscribed["recovered"]
        assert (await client.event("publication", "broadcast/news"))["data"] == "two"

    async def test_server_dies_and_comes_back(self, start: Start, javascript: JavaScript, room: str) -> None:
        server = start()
        client = await javascript.client("a", server.ws)
        await client.connect()
        await client.subscribe(room)
        await client.call("publish", 1, channel=room)
        await client.event("publication", room)
        await asyncio.to_thread(server.kill)
        await client.event("connecting")
        await asyncio.to_thread(server.start)
        again = await client.event("subscribed", room)
        # The memory engine died with its process: that is said, and life goes on.
        assert again["wasRecovering"] and not again["recovered"]
        await client.call("publish", 2, channel=room)
        assert (await client.event("publication", room))["data"] == 2


class TestServerSide:
    async def test_personal_channel(self, server: Server, javascript: JavaScript) -> None:
        client = await javascript.client("a", server.ws, headers=await server.sign_in("ann"))
        await client.connect()
        subscribed = await client.event("subscribed")
        channel = subscribed["channel"]
        assert channel == "#1" and subscribed["recoverable"]
        await server.call("apublish", channel=channel, data="for you")
        assert (await client.event("publication"))["data"] == "for you"
        await client.cut()
        await server.call("apublish", channel=channel, data="missed")
        again = await client.event("subscribed")
        assert again["wasRecovering"] and again["recovered"]
        assert (await client.event("publication"))["data"] == "missed"
        anonymous = await javascript.client("b", server.ws)
        await anonymous.connect()
        assert anonymous.seen("subscribed") == []

    async def test_unsubscribed_by_the_server(self, server: Server, javascript: JavaScript) -> None:
        client = await javascript.client("a", server.ws, headers=await server.sign_in("ann"))
        await client.connect()
        await client.subscribe("member/x")
        await server.call("aunsubscribe", user=1, channel="member/x")
        assert (await client.event("unsubscribed", "member/x"))["code"] == 2000
        await server.call("aunsubscribe", user=1, channel="#1")
        assert (await client.event("unsubscribed"))["channel"] == "#1"


class TestRights:
    async def test_right_taken_away(self, start: Start, javascript: JavaScript) -> None:
        server = start()
        ann = await javascript.client("a", server.ws, headers=await server.sign_in("ann"))
        bob = await javascript.client("b", server.ws, headers=await server.sign_in("bob"))
        for client in (ann, bob):
            await client.connect()
            await client.subscribe("member/x")
        await server.fetch("/change/ann?is_staff=0")
        await server.broadcast("recheck")
        gone = await ann.event("unsubscribed", "member/x")
        assert (gone["code"], gone["reason"]) == (2000, "permission denied")
        await server.call("apublish", channel="member/x", data=1)
        assert (await bob.event("publication", "member/x"))["data"] == 1
        assert ann.seen("publication", "member/x") == []

    @pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
    async def test_disconnected_for_good(self, start: Start, javascript: JavaScript, kind: str) -> None:
        server = start(kind=kind)
        client = await javascript.client("a", server.ws, headers=await server.sign_in("ann"))
        await client.connect()
        await server.call("adisconnect", user=1)
        gone = await client.event("disconnected")
        assert (gone["code"], gone["reason"]) == (3503, "force disconnect")

    async def test_logout_closes_only_that_session(self, server: Server, javascript: JavaScript) -> None:
        first, second = await server.sign_in("ann"), await server.sign_in("ann")
        leaving = await javascript.client("a", server.ws, headers=first)
        staying = await javascript.client("b", server.ws, headers=second)
        for client in (leaving, staying):
            await client.connect()
            await client.subscribe("member/x")
        await server.fetch("/sign-out", first["Cookie"])
        assert (await leaving.event("disconnected"))["code"] == 3503
        await server.call("apublish", channel="member/x", data=1)
        await staying.event("publication", "member/x")

    @pytest.mark.parametrize("change", ["is_active=0", "password=new"])
    async def test_account_changes_end_the_connection(self, start: Start, javascript: JavaScript, change: str) -> None:
        server = start(recheck_interval=1)
        client = await javascript.client("a", server.ws, headers=await server.sign_in("ann"))
        await client.connect()
        await server.fetch(f"/change/ann?{change}")
        assert (await client.event("disconnected"))["code"] == 3503

    async def test_session_expires_at_its_date(self, server: Server, javascript: JavaScript) -> None:
        client = await javascript.client("a", server.ws, headers=await server.sign_in("ann", seconds=2))
        await client.connect()
        assert (await client.event("disconnected"))["code"] == 3503


class TestOrigin:
    @pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
    async def test_foreign_page_gets_403(self, start: Start, kind: str) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus

        server = start(kind=kind)
        for origin, path in (("http://evil.example", "/live/ws"), ("null", "/live/ws"), (None, "/live/nowhere")):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{server.port}{path}", origin=origin)
            assert refused.value.response.status_code == 403
        for origin in ("http://127.0.0.1:9", None):
            async with connect(server.ws, origin=origin):
                pass
