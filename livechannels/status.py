"""The cluster at a glance: what the status page and the command livechannels_status show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from . import api, metrics, stream_status, topics
from .engines.base import RosterGet
from .layer import LiveChannelLayer
from .stream_status import StreamStatus

Status = dict[str, Any]


async def gather() -> Status:
    """Everything below as JSON-able values; one read per roster. Raises EngineUnavailable.

    health: what the health page says; engine: where things are kept, without secrets.
    nodes: id, host, pid, uptime. streams: backend streams with leader, token, state, restarts, last error, rate.
    channels: active live channels. counts: the metrics of this process, summed over labels.
    Times are seconds, rates publications per second.
    """
    layer = api.layer()
    return _status(layer, await layer.run(RosterGet(topics.NODES)), await stream_status.read(layer))


def gather_sync() -> Status:
    """`gather` for sync code."""
    layer = api.layer()
    return _status(layer, layer.run_sync(RosterGet(topics.NODES)), stream_status.read_sync(layer))


def _status(layer: LiveChannelLayer, nodes: Mapping[str, bytes], streams: list[StreamStatus]) -> Status:
    now = time.time()
    return {
        "health": layer.health(),
        "engine": layer.engine.describe(),
        "nodes": [_node(name, entry, now) for name, entry in sorted(nodes.items())],
        "streams": [_stream(stream, now) for stream in streams],
        "channels": [],
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
