from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livechannels import metrics
from livechannels.engines.base import Command, Publish
from livechannels.exceptions import EngineUnavailable, UnknownChannel
from livechannels.layer import LiveChannelLayer
from livechannels.messages.frames import Frame
from livechannels.messages.topics import check_live_name
from livechannels.node.activity import active_channels
from livechannels.push.ingest import COLUMNS, MEASUREMENTS, Ingest, Report, channel_of, labels_text
from livechannels.push.line_protocol import UnknownPrecision
from livechannels.testing import live_test_layer

CPU = "stream/telegraf/cpu"


@pytest.fixture
def layer() -> Iterator[LiveChannelLayer]:
    with live_test_layer() as fresh:
        yield fresh


@pytest.fixture
def ingest(layer: LiveChannelLayer) -> Ingest:
    return Ingest(layer)


def another_node(layer: LiveChannelLayer) -> Ingest:
    """A process of its own, as far as ingest can see: it shares the store and nothing else."""
    other = LiveChannelLayer(ha_engine="memory")
    other.engine = layer.engine
    return Ingest(other)


async def frames(layer: LiveChannelLayer, channel: str = CPU) -> list[Frame]:
    publications = (await layer.history(channel)).publications
    found = [Frame.from_dict(publication.data) for publication in publications]
    assert [(publication.tags or {}).get("schema") for publication in publications] == [one.schema_id for one in found]
    return found


def columns(frame: Frame) -> list[str]:
    return [field.name for field in frame.schema.fields]


async def test_one_frame_for_each_measurement_with_a_row_for_each_point(layer, ingest) -> None:
    report = await ingest.push(
        "telegraf",
        b"cpu,host=a,cpu=cpu1 usage=2,idle=8i 1700000001000000000\n"
        b"mem used=5i,ok=true 1700000000000000000\n"
        b'cpu,cpu=cpu0,host=a usage=1,note="x" 1700000000000000000\n',
    )
    assert report == Report(3, 0, "")
    [cpu] = await frames(layer)
    assert cpu.to_dict() == {
        "schema": {
            "name": "cpu",
            "fields": [
                {"name": "time", "type": "time"},
                {"name": "labels", "type": "string"},
                {"name": "idle", "type": "number"},
                {"name": "note", "type": "string"},
                {"name": "usage", "type": "number"},
            ],
        },
        "data": {
            "values": [
                [1700000000000, 1700000001000],
                ["cpu=cpu0, host=a", "cpu=cpu1, host=a"],
                [None, 8],
                ["x", None],
                [1, 2],
            ]
        },
    }
    [mem] = await frames(layer, "stream/telegraf/mem")
    assert (columns(mem), mem.values) == (["time", "ok", "used"], [[1700000000000], [True], [5]])


async def test_bad_lines_are_reported_and_good_ones_kept(layer, ingest) -> None:
    report = await ingest.push("telegraf", b"cpu a=1\nwrong\ncpu a=2\nworse\n")
    assert (report.accepted, report.rejected) == (2, 2)
    assert str(report) == "line 2: cannot parse measurement in 'wrong'; 2 of 4 rejected"
    assert [len(frame) for frame in await frames(layer)] == [2]


async def test_columns_only_grow_and_keep_their_order_in_any_mix_of_lines(layer, ingest) -> None:
    for body in (b"cpu b=1", b"cpu,host=x a=1", b"cpu c=1,b=2", b"cpu b=3"):
        await ingest.push("telegraf", body)
    assert [columns(frame) for frame in await frames(layer)] == [
        ["time", "b"],
        ["time", "labels", "a", "b"],
        ["time", "labels", "a", "b", "c"],
        ["time", "labels", "a", "b", "c"],
    ]
    assert (await frames(layer))[-1].values[1:] == [[None], [None], [3], [None]]


async def test_a_node_goes_on_from_what_another_published(layer, ingest) -> None:
    other = another_node(layer)
    await ingest.push("telegraf", b"cpu a=1")
    await other.push("telegraf", b"cpu b=1")
    await ingest.push("telegraf", b"cpu a=2")
    await another_node(layer).push("telegraf", b"cpu a=3")
    assert [columns(frame) for frame in await frames(layer)] == [["time", "a"]] + [["time", "a", "b"]] * 3


async def test_nodes_that_began_at_the_same_moment_agree_with_their_next_push(layer, ingest) -> None:
    other = another_node(layer)
    ingest._schemas[CPU] = Frame.from_columns("cpu", {"time": [1], "a": [1], "same": [1]}).schema
    other._schemas[CPU] = Frame.from_columns("cpu", {"time": [1], "b": [1], "same": ["x"]}).schema
    for node in (ingest, other, ingest, other):
        await node.push("telegraf", b"cpu same=1")
    found = await frames(layer)
    assert [columns(frame) for frame in found][1:] == [["time", "a", "b", "same"]] * 3
    assert len({frame.schema_id for frame in found[1:]}) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2i", '"x"', "t"]))),
        min_size=1,
        max_size=12,
    )
)
def test_any_nodes_and_any_mix_give_sorted_growing_columns_of_constant_type(
    pushes: list[tuple[int, dict[str, str]]],
) -> None:
    async def scenario() -> None:
        with live_test_layer() as layer:
            nodes = [another_node(layer) for _ in range(3)]
            for number, fields in pushes:
                line = "cpu " + ",".join(f"{key}={value}" for key, value in (fields or {"a": "1"}).items())
                assert (await nodes[number].push("telegraf", line.encode())).rejected == 0
            found = await frames(layer)
        assert len(found) == len(pushes)
        for before, after in itertools.pairwise(found):
            assert set(before.schema.fields) <= set(after.schema.fields)
            assert columns(after) == ["time", *sorted(columns(after)[1:])]

    asyncio.run(scenario())


async def test_pushes_at_one_time_never_narrow_the_schema(layer, ingest) -> None:
    await asyncio.gather(*(ingest.push("telegraf", b"cpu f%d=1" % number) for number in range(20)))
    widths = [len(frame.schema.fields) for frame in await frames(layer)]
    assert len(widths) == 20
    assert widths == sorted(widths)
    assert widths[-1] == 21


async def test_a_clash_of_types_gives_null_and_is_counted_and_logged_once(layer, ingest, caplog) -> None:
    before = metrics.snapshot()["livechannels_push_clashes_total"]
    with caplog.at_level(logging.WARNING):
        await ingest.push("telegraf", b'cpu a=1\ncpu a="text"')
        report = await ingest.push("telegraf", b"cpu a=true,b=1\ncpu a=2")
    assert report == Report(2, 0, "", clashes=1)
    assert [frame.column("a") for frame in await frames(layer)] == [[1, None], [None, 2]]
    assert metrics.snapshot()["livechannels_push_clashes_total"] - before == 2
    assert [record.getMessage() for record in caplog.records] == [
        "1 pushed values were left out: their type is not that of their column"
    ]


async def test_a_last_frame_that_is_none_of_ours_is_no_obstacle(layer, ingest) -> None:
    for data in ({"hello": 1}, [1], None, {"schema": {"fields": [{"name": "time", "type": "string"}]}, "data": {}}):
        await layer.publish(CPU, data)
        await ingest.push("telegraf", b"cpu a=1")
        last = (await layer.history(CPU, limit=1, reverse=True)).publications[0]
        assert columns(Frame.from_dict(last.data)) == ["time", "a"]


async def test_points_without_time_get_the_time_of_arrival(layer, ingest) -> None:
    await ingest.push("telegraf", b"cpu a=1\ncpu a=2")
    [frame] = await frames(layer)
    publication = (await layer.history(CPU)).publications[0]
    assert frame.column("a") == [1, 2]
    assert all(abs(moment - publication.time) < 60_000 for moment in frame.column("time"))


async def test_precision(layer, ingest) -> None:
    await ingest.push("telegraf", b"cpu a=1 1700000000", "s")
    assert (await frames(layer))[0].column("time") == [1700000000000]
    with pytest.raises(UnknownPrecision):
        await ingest.push("telegraf", b"cpu a=1", "days")


async def test_fields_called_like_our_columns_are_kept_under_another_name(layer, ingest) -> None:
    await ingest.push("telegraf", b'cpu,k=v time=1,time_=2,labels="l" 5000000')
    [frame] = await frames(layer)
    assert dict(zip(columns(frame), frame.values, strict=True)) == {
        "time": [5],
        "labels": ["k=v"],
        "labels_": ["l"],
        "time_": [1],
        "time__": [2],
    }


async def test_very_many_rows_become_several_frames_with_one_schema(layer, ingest, settings) -> None:
    settings.LIVECHANNELS = {**settings.LIVECHANNELS, "LIMITS": {"frame_rows": 100}}
    body = b"\n".join(b"cpu a=%d %d000000" % (number, number) for number in range(250))
    assert (await ingest.push("telegraf", body)).accepted == 250
    found = await frames(layer)
    assert [len(frame) for frame in found] == [100, 100, 50]
    assert [value for frame in found for value in frame.column("a")] == list(range(250))


async def test_frames_over_the_message_limit_are_divided(ingest) -> None:
    with live_test_layer(message_limit=2000) as layer:
        body = b"\n".join(b"cpu a=%d %d000000" % (number, number) for number in range(250))
        assert (await Ingest(layer).push("telegraf", body)).accepted == 250
        found = await frames(layer)
        assert [value for frame in found for value in frame.column("a")] == list(range(250))
        assert len(found) > 1


async def test_lines_that_would_make_a_channel_too_wide_are_refused(layer, ingest) -> None:
    body = b"\n".join(b"cpu f%d=1 %d000000" % (number, number) for number in range(COLUMNS + 10))
    report = await ingest.push("telegraf", body)
    assert report.rejected == 11  # time takes one
    assert report.first_error == "line 512: 'cpu' would have more than 512 fields"
    report = await ingest.push("telegraf", b"cpu new=1\ncpu f1=5")
    assert (report.accepted, report.rejected) == (1, 1)
    assert [len(frame) for frame in await frames(layer)] == [488, 23, 1]  # a wide frame has fewer rows


async def test_the_number_of_measurements_of_one_body_is_bounded(layer, ingest) -> None:
    body = b"\n".join(b"m%d a=1" % number for number in range(MEASUREMENTS + 5))
    report = await ingest.push("telegraf", body)
    assert (report.accepted, report.rejected) == (MEASUREMENTS, 5)
    assert report.first_error == "line 1001: more than 1000 measurements in one body"


async def test_a_body_for_no_live_channel_is_refused_as_a_whole(ingest) -> None:
    with pytest.raises(UnknownChannel, match=r"stream/not\.a\.slug/cpu"):
        await ingest.push("not.a.slug", b"cpu a=1\nbad line")


async def test_a_measurement_without_live_channel_rejects_its_lines_only(layer, ingest) -> None:
    long = b"m" * 300
    report = await ingest.push("telegraf", b"cpu a=1\n" + long + b" a=1\ncpu a=2")
    assert (report.accepted, report.rejected) == (2, 1)
    assert report.first_error.startswith("line 2: stream/telegraf/mmm")
    assert len((await frames(layer))[0]) == 2


@pytest.mark.parametrize(
    ("measurement", "channel"),
    [
        ("cpu", "stream/s/cpu"),
        ("a/b.c:d-e_f#g@h$i,j", "stream/s/a/b.c:d-e_f#g@h$i,j"),
        ("disk io", "stream/s/disk=20io"),
        ("a=20b", "stream/s/a=3D20b"),
        ("größe", "stream/s/gr=C3=B6=C3=9Fe"),
    ],
)
def test_measurements_become_legal_names(measurement: str, channel: str) -> None:
    assert channel_of("s", measurement) == channel


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_names_of_measurements_are_legal_and_never_collide(measurements: list[str]) -> None:
    one, two = (check_live_name(channel_of("s", measurement)) for measurement in measurements)
    assert one != two


tags = st.dictionaries(st.text("ab,= \\", min_size=1, max_size=4), st.text("ab,= \\", min_size=1, max_size=4))


@given(tags, tags)
def test_labels_tell_tag_sets_apart_and_do_not_depend_on_order(one: dict[str, str], two: dict[str, str]) -> None:
    assert (labels_text(one.items()) == labels_text(two.items())) == (one == two)
    assert labels_text(reversed(one.items())) == labels_text(one.items())


async def test_pushed_channels_are_listed_as_active(layer, ingest) -> None:
    for _ in range(2):
        await ingest.push("telegraf", b"cpu a=1\nmem a=1")
    assert [(one.channel, one.rate) for one in await active_channels(layer)] == [
        ("stream/telegraf/cpu", 1),
        ("stream/telegraf/mem", 1),
    ]


class Failing(LiveChannelLayer):
    """A layer whose store goes away after some publishes."""

    publishes = 10**9

    async def run(self, command: Command) -> Any:
        if isinstance(command, Publish):
            self.publishes -= 1
        if self.publishes < 0:
            raise EngineUnavailable
        return await super().run(command)


class Viewer:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_publication(self, publication: Any) -> None:
        self.seen.append(publication.data)


async def test_a_push_refused_because_the_store_is_away_reaches_nobody() -> None:
    layer = Failing(ha_engine="memory")
    node, viewer = layer.node(), Viewer()
    try:
        await node.hub.subscribe(CPU, viewer)
        node.hub.activate(CPU, viewer)
        ingest = Ingest(layer)
        layer.publishes = -1
        with pytest.raises(EngineUnavailable):
            await ingest.push("telegraf", b"cpu a=1")
        assert viewer.seen == []
        layer.publishes = 10
        await ingest.push("telegraf", b"cpu a=1")
        await asyncio.sleep(0)
        assert len(viewer.seen) == 1
    finally:
        await layer.close()


@pytest.mark.parametrize("repeats", [True, False])
async def test_a_body_that_was_half_stored_is_not_doubled_when_it_comes_again(repeats: bool) -> None:
    layer = Failing(ha_engine="memory")
    other = Failing(ha_engine="memory")
    other.engine = layer.engine
    body = b"".join(b"m%d a=1 %d000000\n" % (number, number) for number in range(4))
    layer.publishes = 2
    with pytest.raises(EngineUnavailable):
        await Ingest(layer).push("telegraf", body, repeats=repeats)
    layer.publishes = 100
    await Ingest(other).push("telegraf", body, repeats=repeats)
    counts = [len(await frames(layer, f"stream/telegraf/m{number}")) for number in range(4)]
    assert counts == ([1, 1, 1, 1] if repeats else [2, 2, 1, 1])


async def test_a_repeat_that_is_divided_otherwise_loses_nothing(settings) -> None:
    layer = Failing(ha_engine="memory")
    body = b"\n".join(b"cpu a=%d %d000000" % (number, number) for number in range(100)) + b"\nmem a=1 1"
    for frame_rows, publishes in [(40, 2), (60, 100)]:
        settings.LIVECHANNELS = {**settings.LIVECHANNELS, "LIMITS": {"frame_rows": frame_rows}}
        layer.publishes = publishes
        with contextlib.suppress(EngineUnavailable):
            await Ingest(layer).push("telegraf", body, repeats=True)
    stored = {value for frame in await frames(layer) for value in frame.column("a")}
    assert stored == set(range(100))


@pytest.mark.parametrize("body", [b"cpu a=1 5000000", b"cpu a=1\nmem a=1\n", b"cpu a=1 5000000\nmem a=1"])
async def test_equal_bodies_that_may_be_new_ones_are_all_stored(layer, ingest, body: bytes) -> None:
    for _ in range(2):
        await ingest.push("telegraf", body, repeats=True)
    assert len(await frames(layer)) == 2


async def test_lines_are_counted(ingest) -> None:
    accepted = metrics.counter("livechannels_push_lines_total", "", "outcome")
    before = accepted.value(outcome="accepted"), accepted.value(outcome="rejected")
    await ingest.push("telegraf", b"cpu a=1\ncpu a=2\nbad")
    assert accepted.value(outcome="accepted") - before[0] == 2
    assert accepted.value(outcome="rejected") - before[1] == 1


async def test_a_large_body_leaves_turns_to_others(ingest) -> None:
    body = b"\n".join(b"cpu,host=h%d a=%d %d000000" % (number % 50, number, number) for number in range(20_000))
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)

    watching = asyncio.create_task(watch())
    await ingest.push("telegraf", body)
    watching.cancel()
    assert longest < 0.5
