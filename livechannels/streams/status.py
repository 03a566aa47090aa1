"""What each node says about its backend streams, entered in one roster that every node can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from ..engines.base import Command, RosterGet
from ..messages import topics

T = TypeVar("T")

State = Literal["starting", "running", "backoff", "ended", "stopping"]


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One backend stream as the node that runs it reports it; times are seconds since the Unix epoch.

    `state`: "running"; "backoff" while waiting to restart after `last_error`; "ended" after a clean return.
    `token` is the fencing token, None for scope="node". `since`: when this node took it. `rate`: publications
    per second over the last ten seconds. `restarts` counts since this node took it.
    """

    channel: str
    node: str
    scope: Literal["cluster", "node"]
    state: State
    token: int | None
    since: float
    restarts: int = 0
    last_error: str = ""
    last_error_at: float = 0
    rate: float = 0
    publications: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, fit for JSON."""
        return msgspec.structs.asdict(self)


class NodeReport(msgspec.Struct):
    """A node's entry: the backend streams it has viewers of, and those it runs. `seq` rises with every change."""

    seq: int = 0
    wants: list[str] = []
    streams: list[StreamStatus] = []

    def encode(self) -> bytes:
        return _encoder.encode(self)


class Door(Protocol):
    """What reading needs of a layer."""

    async def run(self, command: Command[T]) -> T: ...

    def run_sync(self, command: Command[T]) -> T: ...


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(NodeReport)


async def read(layer: Door) -> list[StreamStatus]:
    """Every backend stream that runs anywhere in the cluster, by channel. Raises EngineUnavailable."""
    entries = await layer.run(RosterGet(topics.STREAMS))
    return _streams(entries)


def read_sync(layer: Door) -> list[StreamStatus]:
    """As `read`, from synchronous code."""
    entries = layer.run_sync(RosterGet(topics.STREAMS))
    return _streams(entries)


def decode(entries: Mapping[str, bytes]) -> dict[str, NodeReport]:
    """Reports by node id. An entry of another version that cannot be read is left out."""
    reports = {}
    for node, entry in entries.items():
        try:
            reports[node] = _decoder.decode(entry)
        except msgspec.DecodeError:
            continue
    return reports


def _streams(entries: Mapping[str, bytes]) -> list[StreamStatus]:
    """A stream that changed hands may stand in two reports for a moment; the higher token is the leader."""
    found: dict[tuple[str, str], StreamStatus] = {}
    for report in decode(entries).values():
        for status in report.streams:
            key = (status.channel, status.node if status.scope == "node" else "")
            if key not in found or (status.token or 0) > (found[key].token or 0):
                found[key] = status
    return sorted(found.values(), key=lambda status: (status.channel, status.node))
