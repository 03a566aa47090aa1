"""Messages that wait for one connection, bounded in bytes, taken several at a time. Pure."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

MESSAGES_PER_FRAME = 16
BYTES_PER_FRAME = 65_536
SINGLES = 8


class Frame(NamedTuple):
    """Several messages as one text of `size` bytes."""

    messages: int
    size: int
    text: str


class Joiner:
    """Joins messages with a separator and remembers the last result.

    Connections that watch the same channels send the same messages one after the other, so one slot (and a few for
    single messages) is enough to make each text once for all of them.
    """

    __slots__ = ("_separator", "_singles", "_slot")

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self._slot: tuple[tuple[bytes, ...], Frame] = ((), Frame(0, 0, ""))
        self._singles: dict[bytes, Frame] = {}

    def alone(self, message: bytes) -> Frame:
        """One message, by far the most frequent frame."""
        frame = self._singles.get(message)
        if frame is None:
            if len(self._singles) >= SINGLES:
                self._singles.clear()
            frame = self._singles[message] = Frame(1, len(message), message.decode())
        return frame

    def join(self, waiting: tuple[bytes, ...]) -> Frame:
        """As many of the first messages as fit a frame, at least one."""
        known, frame = self._slot
        if known == waiting:
            return frame
        gap = len(self._separator)
        count, size = 1, len(waiting[0])
        while count < len(waiting) and size + gap + len(waiting[count]) <= BYTES_PER_FRAME:
            size += gap + len(waiting[count])
            count += 1
        frame = Frame(count, size, self._separator.join(waiting[:count]).decode())
        self._slot = (waiting, frame)
        return frame


class Backlog:
    """A queue of messages of at most `limit` bytes. Past that, only the newest message of each key stays."""

    __slots__ = ("_joiner", "_keys", "_limit", "_messages", "size")

    coalesced: ClassVar[int] = 0
    """Messages of this process that gave way to a newer one."""

    def __init__(self, limit: int, joiner: Joiner) -> None:
        self._limit = limit
        self._joiner = joiner
        self._messages: list[bytes] = []
        self._keys: list[str | None] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: bytes, key: str | None = None) -> bool:
        """Append a message; False if the backlog is over its limit even after coalescing."""
        self._messages.append(message)
        self._keys.append(key)
        self.size += len(message)
        return self.size <= self._limit or self._coalesce()

    def take(self) -> Frame:
        """Remove the oldest messages, as one frame. The backlog must not be empty."""
        if len(self._messages) == 1 or MESSAGES_PER_FRAME == 1:
            frame = self._joiner.alone(self._messages[0])
            self.size -= frame.size
            del self._messages[0], self._keys[0]
            return frame
        frame = self._joiner.join(tuple(self._messages[:MESSAGES_PER_FRAME]))
        self.size -= sum(map(len, self._messages[: frame.messages]))
        del self._messages[: frame.messages], self._keys[: frame.messages]
        return frame

    def clear(self) -> None:
        self._messages.clear()
        self._keys.clear()
        self.size = 0

    def _coalesce(self) -> bool:
        newest: dict[str, int] = {key: index for index, key in enumerate(self._keys) if key is not None}
        kept = [index for index, key in enumerate(self._keys) if key is None or newest[key] == index]
        Backlog.coalesced += len(self._messages) - len(kept)
        self._messages = [self._messages[index] for index in kept]
        self._keys = [self._keys[index] for index in kept]
        self.size = sum(map(len, self._messages))
        return self.size <= self._limit
