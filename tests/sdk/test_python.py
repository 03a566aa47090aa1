"""centrifuge-python, unmodified, against real servers: an independent reading of the protocol."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from centrifuge import (
    Client,
    ClientEventHandler,
    ReplyError,
    StreamPosition,
    Subscription,
    SubscriptionEventHandler,
)

from tests.sdk.conftest import Start
from tests.sdk.servers import Server

TIMEOUT = 20
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Recorder(ClientEventHandler, SubscriptionEventHandler):
    """Keeps every event; `take` waits for the next of a name."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        async def record(context: Any) -> None:
            self.events.append((name, context))
            self._changed.set()

        return record

    async def take(self, name: str) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    for event in self.events:
                        if event[0] == f"on_{name}":
                            self.events.remove(event)
                            return event[1]
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {name}; there were {self.events}") from None


class Session:
    """A client and what it saw."""

    def __init__(self, server: Server, headers: dict[str, str] | None = None) -> None:
        self.seen = Recorder()
        self.client = Client(
            server.ws, events=self.seen, headers=headers, min_reconnect_delay=0.05, max_reconnect_delay=0.5, timeout=20
        )

    async def subscribe(self, channel: str, **options: Any) -> tuple[Subscription, Recorder]:
        seen = Recorder()
        subscription = self.client.new_subscription(channel, events=seen, min_resubscribe_delay=0.05, **options)
        await subscription.subscribe()
        await seen.take("subscribing")
        return subscription, seen


@pytest.fixture
async def sessions() -> AsyncIterator[list[Session]]:
    sessions: list[Session] = []
    yield sessions
    for session in sessions:
        await session.client.disconnect()
    # The SDK leaves the end of its sockets to tasks and to the garbage collector.
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    if rest:
        await asyncio.wait(rest, timeout=5)
    sessions.clear()
    gc.collect()


async def connected(sessions: list[Session], server: Server, headers: dict[str, str] | None = None) -> Session:
    session = Session(server, headers)
    sessions.append(session)
    await session.client.connect()
    context = await session.seen.take("connected")
    assert context.client and context.version
    return session


class TestCommands:
    async def test_publish_history_and_presence(self, server: Server, sessions: list[Session], room: str) -> None:
        ann = await connected(sessions, server, await server.sign_in("ann"))
        bob = await connected(sessions, server)
        subscription, seen = await ann.subscribe(room, positioned=True, recoverable=True, join_leave=True)
        subscribed = await seen.take("subscribed")
        assert subscribed.recoverable and subscribed.positioned and not subscribed.recovered
        join = await seen.take("join")
        assert (join.info.user, join.info.conn_info) == ("1", {"name": "ann"})
        other, other_seen = await bob.subscribe(room)
        await other_seen.take("subscribed")
        assert (await seen.take("join")).info.user == ""
        for number in range(20):
            await other.publish({"n": number})
        got = [(await seen.take("publication")).pub for _ in range(20)]
        assert [one.data["n"] for one in got] == list(range(20))
        assert [one.offset for one in got] == list(range(1, 21))
        history = await subscription.history(limit=-1)
        assert [one.data["n"] for one in history.publications] == list(range(20))
        page = await subscription.history(limit=2, since=StreamPosition(offset=5, epoch=history.epoch), reverse=False)
        assert [one.offset for one in page.publications] == [6, 7]
        presence = await subscription.presence()
        assert sorted(info.user for info in presence.clients.values()) == ["", "1"]
        stats = await subscription.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 2)
        await other.unsubscribe()
        assert (await seen.take("leave")).info.user == ""

    async def test_rpc_and_errors(self, server: Server, sessions: list[Session], room: str) -> None:
        session = await connected(sessions, server, await server.sign_in("ann"))
        assert (await session.client.rpc("double", {"n": 4})).data == {"user": "ann", "double": 8}
        for method, code in {"nothing": 104, "refused": 404, "denied": 103}.items():
            with pytest.raises(ReplyError) as refused:
                await session.client.rpc(method, {})
            assert refused.value.code == code
        for channel, code in {"nowhere/x": 102, "open/ü": 107}.items():
            _, seen = await session.subscribe(channel)
            assert (await seen.take("unsubscribed")).code == code


class TestRecovery:
    async def test_nothing_is_missed_over_a_reconnect(self, server: Server, sessions: list[Session], room: str) -> None:
        session = await connected(sessions, server)
        _, seen = await session.subscribe(room, recoverable=True)
        await seen.take("subscribed")
        await server.call("apublish", channel=room, data=0)
        await seen.take("publication")
        await session.client.disconnect()
        for number in range(1, 11):
            await server.call("apublish", channel=room, data=number)
        await session.client.connect()
        again = await seen.take("subscribed")
        assert again.was_recovering and again.recovered
        assert [(await seen.take("publication")).pub.data for _ in range(10)] == list(range(1, 11))

    async def test_too_much_missed_is_said(self, server: Server, sessions: list[Session], room: str) -> None:
        channel = room.replace("open", "short")
        session = await connected(sessions, server)
        subscription, seen = await session.subscribe(channel, recoverable=True)
        await seen.take("subscribed")
        await session.client.disconnect()
        for number in range(10):
            await server.call("apublish", channel=channel, data=number)
        await session.client.connect()
        again = await seen.take("subscribed")
        assert again.was_recovering and not again.recovered
        await subscription.publish("live")
        assert (await seen.take("publication")).pub.data == "live"

    async def test_state_is_fetched_when_recovery_is_impossible(
        self, server: Server, sessions: list[Session], room: str
    ) -> None:
        channel = room.replace("open", "short")
        fetched: list[StreamPosition] = []
        session = await connected(sessions, server)

        async def get_state(name: str) -> StreamPosition:
            answer = await session.client.history(channel, limit=0)
            fetched.append(StreamPosition(offset=answer.offset, epoch=answer.epoch))
            return fetched[-1]

        _, seen = await session.subscribe(channel, recoverable=True, get_state=get_state)
        await seen.take("subscribed")
        await session.client.disconnect()
        for number in range(10):
            await server.call("apublish", channel=channel, data=number)
        await session.client.connect()
        again = await seen.take("subscribed")
        assert [position.offset for position in fetched] == [0, 10]
        assert again.recovered


class TestServerSide:
    async def test_personal_channel(self, server: Server, sessions: list[Session]) -> None:
        session = await connected(sessions, server, await server.sign_in("bob"))
        subscribed = await session.seen.take("subscribed")
        assert subscribed.channel == "#2" and subscribed.recoverable
        await server.call("apublish", channel="#2", data="for you")
        assert (await session.seen.take("publication")).pub.data == "for you"
        await session.client.disconnect()
        await server.call("apublish", channel="#2", data="missed")
        await session.client.connect()
        again = await session.seen.take("subscribed")
        assert again.was_recovering and again.recovered
        assert (await session.seen.take("publication")).pub.data == "missed"


class TestEndings:
    async def test_disconnected_for_good(self, start: Start, sessions: list[Session]) -> None:
        server = start()
        session = await connected(sessions, server, await server.sign_in("ann"))
        await server.call("adisconnect", user=1)
        assert (await session.seen.take("disconnected")).code == 3503

    async def test_unsubscribed_by_the_server(self, server: Server, sessions: list[Session]) -> None:
        session = await connected(sessions, server, await server.sign_in("cleo"))
        _, seen = await session.subscribe("member/x")
        await seen.take("subscribed")
        await server.call("aunsubscribe", user=3, channel="member/x")
        assert (await seen.take("unsubscribed")).code == 2000

    async def test_pings_keep_it_and_silence_ends_it(self, start: Start, sessions: list[Session]) -> None:
        server = start(ping_interval=1, pong_timeout=1)
        session = await connected(sessions, server)
        await asyncio.sleep(3)
        assert (await session.client.rpc("sync", None)).data is False
        assert [name for name, _ in session.seen.events if name in ("on_disconnected", "on_connecting")] == [
            "on_connecting"
        ]

    async def test_server_stops_and_comes_back(self, start: Start, sessions: list[Session], room: str) -> None:
        server = start()
        session = await connected(sessions, server)
        _, seen = await session.subscribe(room)
        await seen.take("subscribed")
        await session.seen.take("connecting")
        await asyncio.to_thread(server.stop)
        again = await session.seen.take("connecting")
        assert again.code in (3001, 1)
        await asyncio.to_thread(server.start)
        await session.seen.take("connected")
        await seen.take("subscribed")
