from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import pytest

from livechannels.engines.base import LeaseAcquire, LeaseGet, LeaseRelease
from livechannels.exceptions import ConfigurationError, LeaseLost, ScopeError
from livechannels.layer import LiveChannelLayer, process
from livechannels.leadership.election import rank
from livechannels.messages import topics
from livechannels.messages.publications import Publication
from livechannels.paths import live_path
from livechannels.registry import policy_for
from livechannels.streams import status as stream_status
from livechannels.streams import supervisor as streams
from livechannels.streams.runner import Runner
from livechannels.streams.source import StreamSource

CHANNEL = "source/x"
PATIENCE = 10
viewer_name = contextvars.ContextVar("viewer_name", default="nobody")


class Viewer:
    """A subscriber of a node's hub that keeps what it is given."""

    def __init__(self, layer: LiveChannelLayer, channel: str = CHANNEL) -> None:
        self.layer = layer
        self.channel = channel
        self.seen: list[Publication] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Viewer:
        await self.join()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.leave()

    async def join(self) -> None:
        hub = self.layer.node().hub
        subscribed = await hub.subscribe(self.channel, self, history=100)
        self.seen.extend(subscribed.publications)
        hub.activate(self.channel, self)

    def leave(self) -> None:
        self.layer.node().hub.unsubscribe(self.channel, self)

    def on_publication(self, publication: Publication) -> None:
        self.seen.append(publication)
        self._changed.set()

    def on_join(self, channel: str, info: bytes) -> None: ...

    def on_leave(self, channel: str, info: bytes) -> None: ...

    def on_insufficient(self, channel: str, reason: str) -> None: ...

    @property
    def data(self) -> list[Any]:
        return [publication.data for publication in self.seen]

    async def sees(self, condition: Callable[[list[Any]], bool] = bool) -> list[Any]:
        async with asyncio.timeout(PATIENCE):
            while not condition(self.data):
                self._changed.clear()
                await self._changed.wait()
        return self.data


class Source(StreamSource):
    """Publishes who runs it, twenty times a second; `runs` and `open` say what happened in all nodes of the test."""

    idle_timeout = 0.3
    runs: ClassVar[list[str]] = []
    open: ClassVar[int] = 0

    async def run(self, stream: Any) -> None:
        type(self).runs.append(viewer_name.get())
        Source.open += 1
        try:
            for number in range(1000):
                await stream.publish({"token": stream.token, "number": number})
                await asyncio.sleep(0.05)
        finally:
            Source.open -= 1


async def eventually(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} not within {timeout} s"
        await asyncio.sleep(0.01)
    return value


MakeLayers = Callable[..., list[LiveChannelLayer]]


@pytest.fixture(params=["memory", "redis"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make_layers(
    request: pytest.FixtureRequest, engine: str, prefix: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MakeLayers]:
    """Makes layers of one cluster: each has a node of its own on the test's loop, as processes would."""
    made: list[LiveChannelLayer] = []
    where: dict[str, Any] = {"ha_engine": "memory"}
    if engine == "redis":
        where = {"hosts": [request.getfixturevalue("redis_url")], "prefix": prefix}
    Source.runs.clear()
    Source.open = 0

    def make(source: type[StreamSource], count: int = 1, ttl: float = 1.0) -> list[LiveChannelLayer]:
        settings.LIVECHANNELS = {"CHANNELS": [live_path("source/<str:name>", source)], "LEASE_TTL": ttl}
        for _ in range(count):
            layer = LiveChannelLayer(**where)
            if made and engine == "memory":
                layer.engine = made[0].engine
            made.append(layer)
            layer.node()
        return made[-count:]

    monkeypatch.setattr(process, "startup_hooks", [streams.attach])
    monkeypatch.setattr(LiveChannelLayer, "policies", staticmethod(policy_for))
    yield make
    for layer in made:
        await layer.close()


async def steal(layer: LiveChannelLayer, channel: str = CHANNEL) -> None:
    """Somebody else leads now, as after a failover that lost the lease."""
    topic = topics.live(channel)
    grant = await layer.run(LeaseGet(topic))
    assert grant
    assert grant.token
    assert await layer.run(LeaseRelease(topic, grant.session, grant.token))
    taken = await layer.run(LeaseAcquire(topic, "thief", "thief", 1))
    assert taken.token


async def leader(layers: list[LiveChannelLayer], channel: str = CHANNEL) -> LiveChannelLayer | None:
    grant = await layers[0].run(LeaseGet(topics.live(channel)))
    return next((layer for layer in layers if grant and layer.node().id == grant.holder), None)


def runner_of(layer: LiveChannelLayer, channel: str = CHANNEL) -> Runner | None:
    stream = streams.of(layer.node())._streams.get(channel)
    return stream.runner if stream else None


# Demand


async def test_runs_once_in_the_cluster_and_every_viewer_sees_every_publication_once(make_layers):
    layers = make_layers(Source, 3)
    async with Viewer(layers[0]) as a, Viewer(layers[1]) as b, Viewer(layers[2]) as c:
        await a.sees(lambda data: len(data) >= 10)
        assert len(Source.runs) == 1
        for viewer in (a, b, c):
            offsets = [publication.offset for publication in viewer.seen]
            assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
        assert len({item["token"] for item in a.data}) == 1


async def test_one_viewer_is_enough_for_a_node_without_viewers_to_lead(make_layers):
    layers = make_layers(Source, 3)
    for layer in layers:
        known = streams.of(layer.node()).demand.nodes
        await eventually(lambda known=known: len(known()) == 3, "nodes that know each other")
    ids = [layer.node().id for layer in layers]
    expected = next(node for node in ids if rank(node, ids, CHANNEL) == 0)
    watching = next(layer for layer in layers if layer.node().id != expected)
    async with Viewer(watching) as viewer:
        await viewer.sees()
        assert (await leader(layers)).node().id == expected


async def test_does_not_run_without_viewers(make_layers):
    make_layers(Source, 2)
    await asyncio.sleep(0.3)
    assert Source.runs == []


async def test_stops_idle_timeout_after_the_last_viewer_in_the_cluster(make_layers):
    layers = make_layers(Source, 2)
    first, second = Viewer(layers[0]), Viewer(layers[1])
    await first.join()
    await second.join()
    await first.sees()
    first.leave()
    await asyncio.sleep(0.5)
    assert Source.open == 1
    second.leave()
    left = time.monotonic()
    await eventually(lambda: Source.open == 0, "the source stopped")
    assert 0.25 <= time.monotonic() - left <= 0.8
    await eventually(lambda: not streams.of(layers[0].node()).status(), "no status")
    assert await leader(layers) is None


async def test_a_viewer_who_comes_back_in_time_keeps_it_running(make_layers):
    [layer] = make_layers(Source)
    viewer = Viewer(layer)
    await viewer.join()
    await viewer.sees()
    viewer.leave()
    await asyncio.sleep(0.1)
    await viewer.join()
    await asyncio.sleep(0.5)
    assert len(Source.runs) == 1
    assert Source.open == 1
    viewer.leave()


async def test_always_runs_without_viewers_and_goes_on_when_they_leave(make_layers, settings):
    class Always(Source):
        always = ("source/x",)

    [layer] = make_layers(Always)
    await eventually(lambda: Source.open == 1, "it runs")
    async with Viewer(layer) as viewer:
        await viewer.sees()
    await asyncio.sleep(0.5)
    assert Source.open == 1
    assert len(Source.runs) == 1


def test_always_needs_names(settings):
    class Always(Source):
        always = True

    settings.LIVECHANNELS = {"CHANNELS": [live_path("source/<str:name>", Always)]}
    with pytest.raises(ConfigurationError, match="always = True needs a pattern without parameters"):
        streams.always_on()
    settings.LIVECHANNELS = {"CHANNELS": [live_path("source/x", Always)]}
    assert streams.always_on() == ["source/x"]


async def test_a_node_that_joins_late_learns_what_is_wanted_and_who_leads(make_layers):
    [first] = make_layers(Source)
    async with Viewer(first) as viewer:
        await viewer.sees()
        [second] = make_layers(Source)
        known = await eventually(lambda: streams.of(second.node()).leader(CHANNEL), "the newcomer stands by")
        assert known == first.node().id
        assert len(Source.runs) == 1


async def test_runs_as_the_application_never_as_the_first_viewer(make_layers):
    [layer] = make_layers(Source)
    viewer_name.set("mallory")
    async with Viewer(layer) as viewer:
        await viewer.sees()
    assert Source.runs == ["nobody"]


# Leading and losing


async def test_a_graceful_stop_hands_over_at_once_and_no_publication_is_repeated(make_layers):
    layers = make_layers(Source, 2, ttl=30)
    watcher = Viewer(layers[0])
    other = Viewer(layers[1])
    await watcher.join()
    await other.join()
    await watcher.sees()
    leading = await leader(layers)
    rest = next(layer for layer in layers if layer is not leading)
    viewer = watcher if rest is layers[0] else other
    began = time.monotonic()
    await streams.of(leading.node()).close()
    await eventually(lambda: runner_of(rest) and runner_of(rest).publications, "the other publishes")
    assert time.monotonic() - began < 0.5
    await viewer.sees(lambda data: len({item["token"] for item in data}) == 2)
    tokens = [item["token"] for item in viewer.data]
    assert tokens == sorted(tokens)
    assert Source.open == 1


async def test_the_next_leader_knows_the_last_publication(make_layers):
    class Continues(Source):
        async def run(self, stream: Any) -> None:
            number = (stream.last or {"number": 0})["number"]
            while True:
                number += 1
                await stream.publish({"number": number})
                await asyncio.sleep(0.02)

    layers = make_layers(Continues, 2, ttl=30)
    async with Viewer(layers[0]) as a, Viewer(layers[1]) as b:
        await a.sees()
        await b.sees()
        leading = await leader(layers)
        viewer = b if leading is layers[0] else a
        await asyncio.sleep(0.1)
        await streams.of(leading.node()).close()
        handed = len(viewer.data)
        await viewer.sees(lambda data: len(data) > handed + 3)
        numbers = [item["number"] for item in viewer.data]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_a_publication_with_a_lost_lease_is_refused_and_ends_the_run(make_layers):
    refused = []

    class Stubborn(Source):
        async def run(self, stream: Any) -> None:
            while True:
                try:
                    await stream.publish({"token": stream.token})
                except LeaseLost as error:
                    refused.append(error)
                await asyncio.sleep(0.02)

    [layer] = make_layers(Stubborn)
    async with Viewer(layer) as viewer:
        await viewer.sees()
        token = viewer.data[0]["token"]
        await steal(layer)
        await eventually(lambda: refused, "a refusal")
        await viewer.sees(lambda data: data[-1]["token"] > token)
        assert len(refused) == 1


async def test_a_run_is_named_by_a_tag_that_changes_with_every_start(make_layers):
    class Fails(Source):
        async def run(self, stream: Any) -> None:
            await stream.publish(1, tags={"mine": "yes"})
            await stream.publish(2)
            raise RuntimeError("enough")

    [layer] = make_layers(Fails)
    async with Viewer(layer) as viewer:
        await viewer.sees(lambda data: len(data) >= 4)
        runs = [publication.tags["run"] for publication in viewer.seen[:4]]
        assert runs[0] == runs[1] != runs[2] == runs[3]
        assert viewer.seen[0].tags["mine"] == "yes"


# The life of a run


async def test_a_clean_return_ends_it_and_viewers_are_told(make_layers):
    class Short(Source):
        async def run(self, stream: Any) -> None:
            type(self).runs.append("run")
            await stream.publish({"schema": {"fields": [{"name": "a"}]}, "data": {"values": [[1]]}})

    layers = make_layers(Short, 2)
    viewer = Viewer(layers[0])
    await viewer.join()
    await viewer.sees(lambda data: len(data) == 2)
    assert viewer.seen[1].tags["stream"] == "ended"
    assert viewer.data[1] == {"schema": {"fields": [{"name": "a"}]}, "data": {"values": [[]]}}
    [status] = await eventually(lambda: [s for layer in layers for s in streams.of(layer.node()).status()], "a status")
    assert status.state == "ended"
    await asyncio.sleep(0.5)
    assert Source.runs == ["run"]


async def test_a_new_viewer_elsewhere_is_a_reason_to_run_an_ended_stream_again(make_layers):
    class Short(Source):
        async def run(self, stream: Any) -> None:
            type(self).runs.append("run")
            await stream.publish("x")

    layers = make_layers(Short, 2)
    async with Viewer(layers[0]) as first:
        await first.sees(lambda data: len(data) == 2)
        async with Viewer(layers[1]):
            await first.sees(lambda data: len(data) == 4)
    assert Source.runs == ["run", "run"]


async def test_an_ended_stream_is_not_run_again_by_the_next_leader(make_layers):
    class Short(Source):
        async def run(self, stream: Any) -> None:
            type(self).runs.append("run")
            await stream.publish("x")

    layers = make_layers(Short, 2)
    async with Viewer(layers[0]) as first, Viewer(layers[1]) as second:
        await first.sees(lambda data: "x" in data and data[-1] is None)
        await second.sees(lambda data: "x" in data and data[-1] is None)
        await asyncio.sleep(0.2)
        runs = len(Source.runs)
        leading = await leader(layers)
        rest = next(layer for layer in layers if layer is not leading)
        await streams.of(leading.node()).close()
        runner = await eventually(lambda: runner_of(rest), "the other leads")
        await asyncio.sleep(0.2)
        assert runner.state == "ended"
        assert len(Source.runs) == runs


async def test_an_exception_restarts_it_with_growing_pauses_and_is_reported(make_layers, caplog):
    class Fails(Source):
        times: ClassVar[list[float]] = []

        async def run(self, stream: Any) -> None:
            self.times.append(time.monotonic())
            raise RuntimeError("no such host")

    layers = make_layers(Fails, 2)
    async with Viewer(layers[0]):
        await eventually(lambda: len(Fails.times) >= 4, "four runs")
        pauses = [b - a for a, b in zip(Fails.times, Fails.times[1:], strict=False)][:3]
        assert pauses == pytest.approx([0.1, 0.2, 0.4], abs=0.08)
        statuses = await read_until(layers[0], lambda found: found and found[0].state == "backoff")
        assert statuses[0].restarts >= 4
        assert statuses[0].last_error == "RuntimeError: no such host"
        assert statuses[0].last_error_at == pytest.approx(time.time(), abs=5)
    assert "source/x failed and restarts in 0.1 s: RuntimeError: no such host" in caplog.text


async def read_until(layer: LiveChannelLayer, condition: Callable[[Any], Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await stream_status.read(layer)
            if condition(found):
                return found
            await asyncio.sleep(0.05)


async def test_every_node_can_read_who_leads_what(make_layers):
    layers = make_layers(Source, 3)
    async with Viewer(layers[0]) as viewer:
        await viewer.sees(lambda data: len(data) > 5)
        for layer in layers:
            [status] = await read_until(layer, lambda found: found and found[0].publications)
            assert status.channel == CHANNEL
            assert status.node == (await leader(layers)).node().id
            assert status.token == viewer.data[0]["token"]
            assert status.state == "running"
            assert status.since == pytest.approx(time.time(), abs=10)
        assert stream_status.read_sync(layers[1])[0].channel == CHANNEL
        rates = [status.rate for status in streams.local_status() if status.channel == CHANNEL]
        assert 2 <= rates[0] <= 25


async def test_a_changed_configuration_restarts_it(make_layers, monkeypatch):
    monkeypatch.setattr("livechannels.streams.runner.ASK_CONFIGURATION", 0.05)
    wanted = {"url": "one"}

    class Configured(Source):
        def configuration(self) -> Any:
            return dict(wanted)

        async def run(self, stream: Any) -> None:
            url = wanted["url"]
            while True:
                await stream.publish(url)
                await asyncio.sleep(0.02)

    [layer] = make_layers(Configured)
    async with Viewer(layer) as viewer:
        await viewer.sees()
        wanted["url"] = "two"
        await viewer.sees(lambda data: data[-1] == "two")
        assert runner_of(layer).restarts == 0


async def test_can_be_asked_to_restart_from_sync_and_async_code(make_layers, monkeypatch):
    layers = make_layers(Source, 2)
    async with Viewer(layers[0]) as viewer:
        await viewer.sees()
        for number, layer in enumerate(layers, 2):
            monkeypatch.setattr(streams, "live_layer", lambda alias, layer=layer: layer)
            await streams.arestart("source/*")
            await eventually(lambda number=number: len(Source.runs) == number, "a restart")
        await asyncio.to_thread(streams.restart, "other", "source/x")
        await eventually(lambda: len(Source.runs) == 4, "a restart")
        await streams.arestart("other/*")
        await asyncio.sleep(0.1)
        assert len(Source.runs) == 4


async def test_a_blocked_loop_is_named_and_the_run_reported(make_layers, caplog):
    class Blocks(Source):
        async def run(self, stream: Any) -> None:
            await stream.publish("x")
            time.sleep(1.6)
            await asyncio.sleep(3600)

    [layer] = make_layers(Blocks, ttl=30)
    with caplog.at_level(logging.WARNING):
        async with Viewer(layer) as viewer:
            await viewer.sees()
            blame = await eventually(lambda: runner_of(layer).last_error, "the blame")
            assert "blocked the event loop for 1." in blame
    record = next(record for record in caplog.records if "blocks the event loop" in record.getMessage())
    assert "stream source/x blocks the event loop" in record.getMessage()
    assert "test_supervisor.py" in record.getMessage()
    assert "Blocks.run" in record.getMessage()


async def test_a_source_that_ignores_its_cancellation_is_not_started_twice(make_layers):
    class Deaf(Source):
        let_go: ClassVar[asyncio.Event]

        async def run(self, stream: Any) -> None:
            type(self).runs.append("run")
            await stream.publish("x")
            while not self.let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.let_go.wait()

    Deaf.let_go = asyncio.Event()
    layers = make_layers(Deaf, 2, ttl=30)
    async with Viewer(layers[0]) as viewer:
        await viewer.sees()
        leading = await leader(layers)
        runner = runner_of(leading)
        streams.of(leading.node()).leadership.lose(runner._lease, "the test says so")
        await asyncio.sleep(0.6)
        assert runner_of(leading) is runner
        assert Source.runs.count("run") <= 2
        Deaf.let_go.set()
        await eventually(lambda: runner_of(leading) is not runner, "it let go")


def test_a_generator_is_refused_with_a_hint():
    with pytest.raises(TypeError, match=r"call stream\.publish\(frame\) instead"):

        class Yields(StreamSource):
            async def run(self, stream: Any) -> Any:
                yield 1


# Sources in threads


class ThreadSource(Source):
    threads: ClassVar[list[str]] = []
    ended: ClassVar[list[str]] = []

    def run(self, stream: Any) -> None:
        self.threads.append(threading.current_thread().name)
        number = 0
        try:
            while not stream.stopped:
                number += 1
                stream.publish({"token": stream.token, "number": number})
                stream.wait(0.02)
        finally:
            self.ended.append("stopped" if stream.stopped else "failed")


async def test_a_plain_run_gets_a_thread_and_sees_that_it_is_stopped(make_layers):
    ThreadSource.threads.clear()
    ThreadSource.ended.clear()
    [layer] = make_layers(ThreadSource)
    async with Viewer(layer) as viewer:
        await viewer.sees(lambda data: len(data) > 3)
        assert ThreadSource.threads == ["stream source/x"]
    await eventually(lambda: ThreadSource.ended, "the thread's end")
    assert ThreadSource.ended == ["stopped"]
    assert [item["number"] for item in viewer.data] == list(range(1, len(viewer.data) + 1))


async def test_publish_in_a_stopped_thread_raises_lease_lost(make_layers):
    outcome: list[BaseException] = []

    class Unaware(Source):
        def run(self, stream: Any) -> None:
            try:
                while True:
                    stream.publish("x")
                    time.sleep(0.05)
            except LeaseLost as error:
                outcome.append(error)
                raise

    [layer] = make_layers(Unaware)
    async with Viewer(layer) as viewer:
        await viewer.sees()
    await eventually(lambda: outcome, "LeaseLost")
    await eventually(lambda: not streams.of(layer.node())._streams, "the stream is gone")


async def test_an_exception_in_a_thread_restarts_it(make_layers):
    class Fails(Source):
        def run(self, stream: Any) -> None:
            stream.publish("x")
            raise OSError("gone")

    [layer] = make_layers(Fails)
    async with Viewer(layer) as viewer:
        await viewer.sees(lambda data: len(data) >= 2)
        assert runner_of(layer).last_error == "OSError: gone"


# scope = "node"


async def test_with_scope_node_each_node_runs_its_own_for_its_own_viewers(make_layers):
    class PerNode(Source):
        scope = "node"

        async def run(self, stream: Any) -> None:
            type(self).runs.append("run")
            me = len(self.runs)
            number = 0
            while True:
                number += 1
                await stream.publish({"node": me, "number": number, "token": stream.token})
                await asyncio.sleep(0.02)

    layers = make_layers(PerNode, 3)
    async with Viewer(layers[0]) as a, Viewer(layers[1]) as b, Viewer(layers[2]) as c:
        viewers = (a, b, c)
        for viewer in viewers:
            await viewer.sees(lambda data: len(data) > 10)
        assert len(Source.runs) == 3
        assert [{item["node"] for item in viewer.data} for viewer in viewers] == [{1}, {2}, {3}]
        for viewer in viewers:
            assert [item["number"] for item in viewer.data] == list(range(1, len(viewer.data) + 1))
            assert {item["token"] for item in viewer.data} == {None}
        statuses = await read_until(layers[0], lambda found: len(found) == 3)
        assert {status.scope for status in statuses} == {"node"}
        with pytest.raises(ScopeError):
            await layers[0].publish(CHANNEL, "from outside")
        assert (await layers[0].run(LeaseGet(topics.live(CHANNEL)))) is None
    await eventually(lambda: not any(streams.of(layer.node()).status() for layer in layers), "all stopped")


# The loop's end


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 20])
def test_a_loop_that_ends_without_goodbye_ends(settings, monkeypatch, turns):
    settings.LIVECHANNELS = {"CHANNELS": [live_path("source/<str:name>", Source)]}
    monkeypatch.setattr(process, "startup_hooks", [streams.attach])

    async def visit() -> None:
        LiveChannelLayer(ha_engine="memory").node()
        for _ in range(turns):
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(visit()), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "a task swallowed its cancellation"


@pytest.mark.parametrize("failing", [1, 2])
async def test_a_source_whose_constructor_fails_is_tried_again(make_layers, caplog, failing):
    class Fragile(Source):
        made: ClassVar[int] = 0

        def __init__(self, *args: Any) -> None:
            Fragile.made += 1
            if Fragile.made <= failing:
                raise OSError("the database is away for a moment")
            super().__init__(*args)

    [layer] = make_layers(Fragile)
    async with Viewer(layer) as viewer:
        await viewer.sees()
        assert runner_of(layer).restarts == failing
    assert caplog.text.count("failed and restarts") == failing
