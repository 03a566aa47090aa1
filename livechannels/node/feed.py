"""One topic with local members, as a node follows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any

from ..messages.positions import Entry, Position


class Feed:
    """One topic as this node follows it. Subclasses say what delivery and a gap mean to their members.

    `position` is None until it is known, and stays None for a topic without history.
    """

    __slots__ = ("busy", "filling", "held", "joining", "position", "topic")

    def __init__(self, topic: str, position: Position | None = None) -> None:
        self.topic = topic
        self.position = position
        self.filling = False
        self.busy = False
        self.held: deque[tuple[Position, Entry]] | None = None
        self.joining: list[asyncio.Future[None]] | None = None

    @property
    def retained(self) -> bool:
        """Whether the store keeps this topic's messages, so that they have positions."""
        return True

    @property
    def max_age(self) -> float:
        """Seconds after which a stored message is no longer delivered; 0 for no limit."""
        return 0

    @property
    def renew(self) -> float:
        """Seconds the store shall remember this topic's position from now on, while this node follows it."""
        return 0

    @property
    def create(self) -> bool:
        """Whether following this topic makes it begin."""
        return False

    @property
    def audience(self) -> Collection[Any]:
        """Who gets the next message."""
        return ()

    def deliver(self, entry: Entry, epoch: str, served: Collection[Any] = ()) -> None:
        """The next message, in order; `epoch` is "" and the offset 0 for one without a position.

        Those of the audience that are among `served` have got it before.
        """
        raise NotImplementedError

    def gap(self, reason: str) -> bool:
        """Messages were lost for good. True iff what history still holds after the gap shall be delivered."""
        raise NotImplementedError

    def rebased(self) -> bool:
        """The epoch changed and nothing was lost. True iff delivery shall simply go on."""
        return True

    @property
    def idle(self) -> bool:
        """Whether nobody is left who wants this topic."""
        raise NotImplementedError

    def left(self) -> None:
        """This node follows the topic no more."""
