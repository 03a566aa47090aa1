"""Positions in a stream, and the rule that says when a reader may go on from one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Position(NamedTuple):
    """Where a reader stands: `offset` counts from 1 within `epoch`; ("", 0) is before everything."""

    epoch: str
    offset: int


START = Position("", 0)


class Beginning(NamedTuple):
    """An epoch of a stream and the offset after which it began."""

    epoch: str
    began_at: int


class Entry(NamedTuple):
    """One message: its offset, the server's time in milliseconds, its body, and the id of its publication."""

    offset: int
    time: int
    body: bytes
    id: bytes = b""


class Slice(NamedTuple):
    """What a read returned: the stream's top, its epochs oldest first, and entries in the order asked for."""

    position: Position
    epochs: tuple[Beginning, ...]
    entries: list[Entry]


class Recovery(NamedTuple):
    """Outcome of a recovery read. `entries` is complete if `recovered`, else empty; `reason` says why not."""

    recovered: bool
    entries: list[Entry]
    position: Position
    reason: str


def continues(since: Position, position: Position, epochs: Sequence[Beginning]) -> bool:
    """True iff nothing a reader at `since` has seen was taken back.

    A position of an earlier epoch goes on iff its offset is not past the point where the next epoch
    began: the epoch changed, but nothing the reader knows was lost.
    """
    if not since.epoch or since.epoch == position.epoch:
        return since.offset <= position.offset
    names = [beginning.epoch for beginning in epochs]
    if since.epoch not in names:
        return False
    follower = names.index(since.epoch) + 1
    return follower < len(epochs) and since.offset <= epochs[follower].began_at


def diverged(since: Position, epochs: Sequence[Beginning]) -> int:
    """The offset after which nothing in the stream is known to a reader at `since` whose epoch does not go on.

    That is where the epoch after its own began. If its own is not on record, the newest's beginning is the only
    offset after which it surely has nothing: a gap is told anyway, and a repeat is never allowed.
    """
    names = [beginning.epoch for beginning in epochs]
    if since.epoch in names[:-1]:
        return epochs[names.index(since.epoch) + 1].began_at
    return epochs[-1].began_at


def recover(since: Position, found: Slice) -> Recovery:
    """Judge a read of everything after `since` (oldest first): complete, or not recovered. Never partial."""
    top = found.position
    if not continues(since, top, found.epochs):
        return Recovery(False, [], top, "restart")
    if since.offset >= top.offset:
        return Recovery(True, [], top, "")
    entries = [entry for entry in found.entries if entry.offset > since.offset]
    expected = range(since.offset + 1, top.offset + 1)
    if len(entries) != len(expected) or entries[0].offset != expected[0] or entries[-1].offset != expected[-1]:
        return Recovery(False, [], top, "trimmed")
    return Recovery(True, entries, top, "")
