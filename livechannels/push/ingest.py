"""Pushed line protocol becomes frames on live channels: measurement M of stream S on `stream/S/M`.

One body gives each of its measurements one frame (several where it has very many rows), one row for each
point, in order of time. Its columns are `time`; `labels`, the sorted tags as text ("cpu=cpu0, host=a"), where
there are tags; and the fields, sorted by name. Columns only ever grow: those a channel had in its last frame,
whichever node published it, stay and are null where a body does not have them. So nodes, and bodies with
other lines, agree on the schema. A value of another type than its column is null, counted and logged.

A character of a measurement that no live channel name may hold is written as "=" and two hexadecimal digits
for each of its bytes, and so is "=" itself: "disk io" is published on `stream/S/disk=20io`. A field named
"time" or "labels" gets a "_" at its end, to be told from those columns.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from channels.exceptions import MessageTooLarge

from .. import conf, metrics
from ..exceptions import InvalidChannelName, InvalidFrame, UnknownChannel
from ..layer import LiveChannelLayer
from ..messages.frames import LABELS, TIME, Schema, infer, merge, tabulate
from ..messages.publications import Publication
from ..messages.topics import check_live_name
from ..node.activity import Activity
from .line_protocol import BadLine, Point, parse

logger = logging.getLogger(__name__)

LINES = metrics.counter("livechannels_push_lines_total", "Lines of line protocol pushed to this node.", "outcome")
CLASHES = metrics.counter("livechannels_push_clashes_total", "Pushed values left out: not of their column's type.")

COLUMNS = 512  # of one channel; lines that would add more are refused
MEASUREMENTS = 1000  # of one body
_CELLS = 250_000  # of one frame: wide frames have fewer rows
_CHANNELS_KNOWN = 10_000
_SLICE = 200  # lines read before other tasks get a turn
_WARN_EVERY = 60.0

_ILLEGAL = re.compile(rb"[^A-Za-z0-9_.:/#@$,\-]")
_RESERVED = re.compile(f"({TIME}|{LABELS})_*")
_SPECIAL = re.compile(r"[\\,=]")


class Report(NamedTuple):
    """What became of a body's lines. `first_error` is "" or "line 7: why"; `clashes` counts values left out."""

    accepted: int
    rejected: int
    first_error: str
    clashes: int = 0

    def __str__(self) -> str:
        return f"{self.first_error}; {self.rejected} of {self.accepted + self.rejected} rejected"


@dataclass(slots=True)
class _Series:
    """One measurement of one body: its channel, its rows, and the lines they came from."""

    measurement: str
    channel: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    timed: bool = True


@dataclass(slots=True)
class _Batch:
    series: dict[str, _Series | str] = field(default_factory=dict)
    errors: list[BadLine] = field(default_factory=list)
    unknown: str = ""

    def good(self) -> list[_Series]:
        return [series for series in self.series.values() if isinstance(series, _Series) and series.rows]


class Ingest:
    """The way in for pushed points; one per layer, shared by HTTP and WebSocket."""

    def __init__(self, layer: LiveChannelLayer) -> None:
        self.layer = layer
        self._activity = Activity(layer)
        self._schemas: dict[str, Schema] = {}
        self._warned = -_WARN_EVERY

    async def push(self, stream_id: str, body: bytes, precision: str = "ns", *, repeats: bool = False) -> Report:
        """Publish the good lines of a body and report the bad ones.

        Raises UnknownPrecision, and UnknownChannel if no measurement of the body has a live
        channel. Raises EngineUnavailable or PublishUnknown if the store is away: then nothing was delivered,
        or, if it went away in the middle, some measurements were stored and others not.

        `repeats` says that the sender sends a refused body again. Then, if the body fills several channels and
        each point carries its own time, what was already stored of it is not stored again within five minutes.
        """
        limits = conf.settings.LIMITS
        batch = await self._read(stream_id, body, precision, limits)
        series = batch.good()
        if not series and batch.unknown:
            raise UnknownChannel(batch.unknown)
        # Reading first proves that the store is there: a refused push must not reach local viewers either.
        last = await _all(self._last_schema(one) for one in series)
        for one, schema in zip(series, last, strict=True):
            batch.errors += self._learn(one, schema)
        key = ""
        if repeats and len(series) > 1 and all(one.timed for one in series):
            key = hashlib.blake2b(precision.encode() + body, digest_size=16).hexdigest()
        clashes = sum(await _all(self._publish(one, limits["frame_rows"], key) for one in series))
        return self._report(sum(len(one.rows) for one in series), batch.errors, clashes)

    async def _read(self, stream_id: str, body: bytes, precision: str, limits: dict[str, int]) -> _Batch:
        batch = _Batch()
        outcomes = parse(
            body,
            arrival=time.time_ns() // 1_000_000,
            precision=precision,
            line_bytes=limits["push_line_bytes"],
            tags=limits["push_tags"],
        )
        for count, outcome in enumerate(outcomes, 1):
            if isinstance(outcome, BadLine):
                batch.errors.append(outcome)
            else:
                self._sort_in(batch, stream_id, outcome)
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return batch

    def _sort_in(self, batch: _Batch, stream_id: str, point: Point) -> None:
        series = batch.series.get(point.measurement)
        if series is None and len(batch.series) < MEASUREMENTS:
            series = batch.series[point.measurement] = self._series(batch, stream_id, point.measurement)
        if not isinstance(series, _Series):
            batch.errors.append(BadLine(point.line, series or f"more than {MEASUREMENTS} measurements in one body"))
            return
        series.rows.append(_row(point))
        series.lines.append(point.line)
        series.timed = series.timed and point.timed

    def _series(self, batch: _Batch, stream_id: str, measurement: str) -> _Series | str:
        """The measurement's place, or the reason why its lines are refused."""
        channel = channel_of(stream_id, measurement)
        try:
            policy = self.layer.policies(check_live_name(channel))
        except (UnknownChannel, InvalidChannelName) as error:
            batch.unknown = batch.unknown or f"{channel[:300]}: {error}"
            return f"{channel[:300]}: {error}"
        if policy.scope == "node":
            return f'{channel} has scope="node": it cannot be pushed to'
        return _Series(measurement, channel)

    async def _last_schema(self, series: _Series) -> Schema | None:
        try:
            history = await self.layer.history(series.channel, limit=1, reverse=True)
        except ValueError:
            return None  # sealed with a key that is no longer ours
        if not history.publications:
            return None
        last = history.publications[0]
        known = self._schemas.get(series.channel)
        if known is not None and (last.tags or {}).get("schema") == known.id:
            return known
        return _schema_in(last)

    def _learn(self, series: _Series, last: Schema | None) -> list[BadLine]:
        """Bring the channel's schema up to date; the lines that would make it too wide are taken out, and returned.

        No await between this and the publishing tasks: of two bodies on one node, the one that is published
        later has the wider schema.
        """
        known = self._schemas.pop(series.channel, None)
        if last is not None and last is not known:
            known = last if known is None else merge(last, known)
        refused: list[BadLine] = []
        schema = merge(known, infer(series.measurement, series.rows))
        if len(schema.fields) > COLUMNS:
            refused = _narrow(series, known)
            schema = merge(known, infer(series.measurement, series.rows))
        if len(self._schemas) >= _CHANNELS_KNOWN:
            self._schemas.pop(next(iter(self._schemas)))
        self._schemas[series.channel] = schema
        return refused

    async def _publish(self, series: _Series, frame_rows: int, key: str) -> int:
        rows = sorted(series.rows, key=lambda row: row[TIME])
        clashes = start = count = 0
        while start < len(rows):
            schema = self._schemas.get(series.channel) or infer(series.measurement, rows)
            frame_rows = max(1, min(frame_rows, _CELLS // len(schema.fields)))
            end = min(start + frame_rows, len(rows))
            frame, clashing = tabulate(schema, rows[start:end])
            try:
                await self.layer.publish(
                    series.channel,
                    None,
                    raw=frame.to_json(),
                    tags={"schema": frame.schema_id},
                    idempotency_key=f"{key}-{start}-{end}" if key else None,
                )
            except MessageTooLarge:
                if frame_rows == 1:
                    raise
                frame_rows //= 2
                continue
            clashes += clashing
            start = end
            count += 1
            await asyncio.sleep(0)
        await self._activity.published(series.channel, count)
        return clashes

    def _report(self, accepted: int, errors: list[BadLine], clashes: int) -> Report:
        LINES.inc(accepted, outcome="accepted")
        LINES.inc(len(errors), outcome="rejected")
        if clashes:
            CLASHES.inc(clashes)
            now = time.monotonic()
            if now - self._warned >= _WARN_EVERY:
                self._warned = now
                logger.warning("%d pushed values were left out: their type is not that of their column", clashes)
        first = str(min(errors)) if errors else ""
        return Report(accepted, len(errors), first, clashes)


def channel_of(stream_id: str, measurement: str) -> str:
    """The live channel that a stream's measurement is published on; different measurements never share one."""
    escaped = _ILLEGAL.sub(lambda found: b"=%02X" % found[0][0], measurement.encode())
    return f"stream/{stream_id}/{escaped.decode()}"


def labels_text(tags: Iterable[tuple[str, str]]) -> str:
    """Tags as the `labels` column shows them: sorted, "key=value, key=value", with \\ before \\ , and = in names."""
    return ", ".join(f"{_SPECIAL.sub(_escape, key)}={_SPECIAL.sub(_escape, value)}" for key, value in sorted(tags))


def _escape(found: re.Match[str]) -> str:
    return "\\" + found[0]


def _row(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {name + "_" if _RESERVED.fullmatch(name) else name: v for name, v in point.fields.items()}
    row[TIME] = point.time
    if point.tags:
        row[LABELS] = labels_text(point.tags.items())
    return row


def _narrow(series: _Series, known: Schema | None) -> list[BadLine]:
    """Take out of a series the rows whose fields do not fit into COLUMNS, keeping the earliest."""
    names = {field.name for field in known.fields} if known is not None else {TIME}
    kept: list[tuple[int, dict[str, Any]]] = []
    refused = []
    for line, row in zip(series.lines, series.rows, strict=True):
        wider = names | row.keys()
        if len(wider) <= COLUMNS:
            names = wider
            kept.append((line, row))
        else:
            refused.append(BadLine(line, f"{series.measurement[:60]!r} would have more than {COLUMNS} fields"))
    series.lines = [line for line, _ in kept]
    series.rows = [row for _, row in kept]
    return refused


class _FrameOnly(msgspec.Struct):
    schema: dict[str, Any]


def _schema_in(publication: Publication) -> Schema | None:
    """The schema of a frame somebody published, if its time and labels are what they are here."""
    try:
        schema = Schema.from_dict(msgspec.json.decode(publication.raw, type=_FrameOnly).schema)
    except (msgspec.DecodeError, InvalidFrame):
        return None
    types = {field.name: field.type for field in schema.fields}
    return schema if types.get(TIME) == "time" and types.get(LABELS, "string") == "string" else None


async def _all(coroutines: Iterable[Any]) -> list[Any]:
    """The results of all, in order; once all have ended, the first error there was."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
