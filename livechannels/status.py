"""The cluster at a glance: what the status page and the command livechannels_status show."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgspec

from . import metrics
from .engines.base import RosterGet
from .layer import LiveChannelLayer, live_layer
from .messages import topics
from .node.activity import ActiveChannel, active_channels, active_channels_sync
from .streams import status as stream_status
from .streams.status import StreamStatus

Status = dict[str, Any]


async def gather() -> Status:
    """Everything below as JSON-able values; one read per roster. Raises EngineUnavailable.

    health: what the health page says; engine: where things are kept, without secrets.
    nodes: id, host, pid, uptime. streams: backend streams with leader, token, state, restarts, last error, rate.
    channels: those published to in the last five minutes, and those with viewers on this process's nodes (None in
    a process without one). counts: this process's metrics, summed over labels.
    Times are in seconds, rates in publications per second (of channels: per minute).
    """
    layer = live_layer()
    nodes = await layer.run(RosterGet(topics.NODES))
    return _status(layer, nodes, await stream_status.read(layer), await active_channels(layer))


def gather_sync() -> Status:
    """`gather` for sync code."""
    layer = live_layer()
    nodes = layer.run_sync(RosterGet(topics.NODES))
    return _status(layer, nodes, stream_status.read_sync(layer), active_channels_sync(layer))


def _status(
    layer: LiveChannelLayer, nodes: dict[str, bytes], streams: list[StreamStatus], channels: list[ActiveChannel]
) -> Status:
    now = time.time()
    return {
        "health": layer.health(),
        "engine": layer.engine.describe(),
        "nodes": [_node(name, entry, now) for name, entry in sorted(nodes.items())],
        "streams": [_stream(stream, now) for stream in streams],
        "channels": _channels(layer, channels, now),
        "counts": metrics.snapshot(),
    }


def _node(name: str, entry: bytes, now: float) -> dict[str, Any]:
    said = msgspec.json.decode(entry)
    return {"node": name, "host": said["host"], "pid": said["pid"], "uptime": round(now - said["since"], 1)}


def _stream(stream: StreamStatus, now: float) -> dict[str, Any]:
    return {
        "channel": stream.channel,
        "leader": stream.node,
        "scope": stream.scope,
        "state": stream.state,
        "token": stream.token,
        "age": round(now - stream.since, 1),
        "rate": round(stream.rate, 2),
        "restarts": stream.restarts,
        "last_error": stream.last_error,
    }


def _channels(layer: LiveChannelLayer, active: list[ActiveChannel], now: float) -> list[dict[str, Any]]:
    nodes = layer.nodes()
    viewers: Counter[str] = sum((Counter(node.hub.counts()) for node in nodes), Counter())
    silent = sorted(viewers.keys() - {channel.channel for channel in active})
    rows: list[tuple[str, int, float | None]]
    rows = [(channel.channel, channel.rate, round(now - channel.last, 1)) for channel in active]
    rows += [(channel, 0, None) for channel in silent]
    return [
        {"channel": channel, "viewers": viewers[channel] if nodes else None, "minute_rate": rate, "last": last}
        for channel, rate, last in rows
    ]
