"""The contract of an engine: commands as values, one door for async code, one for sync code.

An engine stores *topics*: named sequences with positions. A group, a node's inbox and a live channel
are all topics (see `livechannels.topics`). Every operation is a `Command`, run whole or not at all;
who runs it, on which loop or thread, is not the command's business.

Guarantees every engine gives, and the contract suite asserts:

* `Publish` with a retention assigns the next offset, stores the entry and delivers it as one step.
* A subscriber sees a topic's messages in offset order while its path holds; a broken path is always
  reported by `Listener.on_resumed`, after which messages may be missing and a `Read` finds them.
* A publish with a `Fence` is stored only while exactly that session and token hold the lease.
* A queue item is handed to exactly one `QueuePop`, and a lost answer loses or repeats none: what a `Turn` does,
  it does once.
* Delivery itself is at most once; what repairs it is the reader's position (see `livechannels.feeds`).
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ..messages.positions import START, Position, Slice

T = TypeVar("T")


class Retention(NamedTuple):
    """How long a topic keeps what is published: entries, seconds, and seconds its position outlives it."""

    size: int
    ttl: float
    meta_ttl: float


class Fence(NamedTuple):
    """Proof of leadership: the lease's session and fencing token, compared for equality."""

    session: str
    token: int


class Published(NamedTuple):
    """`position` is None without retention; `plain` are the plain channels that stand in the group."""

    position: Position | None
    plain: list[str]
    repeated: bool = False
    replicas: int | None = None


class Grant(NamedTuple):
    """A lease as the store sees it. `token` is set iff the asking session holds it."""

    token: int | None
    holder: str
    session: str
    remaining: float
    since: float


class Health(NamedTuple):
    """`since` is seconds since the Unix epoch when the current state began."""

    ok: bool
    since: float
    detail: str
    rewind_detection: bool = True


class Command(Generic[T]):
    """One atomic operation on one topic; T is what running it returns."""

    topic: str


class Turn(NamedTuple):
    """A reader of a queue and the number of its request. Numbers rise; who got no answer asks again with the same.

    A reader has one request at a time. The store remembers its last for a minute.
    """

    reader: str
    number: int = 1


def _only_turn() -> Turn:
    return Turn(uuid.uuid4().hex)


@dataclass(slots=True)
class Publish(Command[Published]):
    """Store (with `retention`) and deliver one message. Raises LeaseLost if `fence` does not hold.

    `key`: an idempotency key; a repeat within five minutes stores nothing and returns the first position.
    `seen`: the highest position this node knows, for stores that cannot tell their own rewind.
    `id`: 11 characters unique to this publication, by which it is recognised should it come twice: made of topic
    and key, or else by an engine whose answers can be lost, before anything is sent.
    `replicate`: wait for a replica that long (seconds) and report how many have it.
    """

    topic: str
    body: bytes
    retention: Retention | None = None
    fence: Fence | None = None
    key: str | None = None
    seen: Position = START
    id: str = ""
    replicate: float = 0
    byte_limit: int = 0

    def __post_init__(self) -> None:
        if self.key is not None and not self.id:
            self.id = blake2b(f"{self.topic}\0{self.key}".encode(), digest_size=6).hexdigest()[:11]


@dataclass(slots=True)
class Read(Command[Slice]):
    """Read entries after `since`, and the topic's position.

    With `reverse` the newest come first, and only those before `since` (all of them without one), so that the last
    entry of a page is where the next page goes on.

    `limit` 0 reads the position only, -1 everything. Entries older than `max_age` seconds are left out.
    `witness`: `since` is what this node itself was given, so a lower stored offset proves a rewind (for stores that
    cannot tell their own); never set it for a position that a client claims.
    `create` makes a missing topic begin now; `renew` keeps the position record alive for so many seconds.
    """

    topic: str
    since: Position = START
    limit: int = -1
    reverse: bool = False
    max_age: float = 0
    create: bool = False
    renew: float = 0
    witness: bool = False


@dataclass(slots=True)
class Positions(Command[list[Position]]):
    """The positions of many topics of one store, START for a missing one. `topic` is any of them.

    `renew` keeps their position records alive for so many seconds.
    """

    topic: str
    topics: list[str]
    renew: float = 0


@dataclass(slots=True)
class Trim(Command[None]):
    """Forget entries up to and including `offset`; the position stays. Nothing happens if `epoch` is over."""

    topic: str
    offset: int
    epoch: str = ""


@dataclass(slots=True)
class QueuePush(Command[bool]):
    """Append to a queue and wake its readers; False iff it already holds `capacity` unexpired items."""

    topic: str
    body: bytes
    capacity: int
    expiry: float


@dataclass(slots=True)
class QueuePop(Command[list[bytes]]):
    """Take up to `limit` of the oldest unexpired items; each item goes to one caller only.

    The same `turn` again first puts back what its lost answer held.
    """

    topic: str
    limit: int = 1
    turn: Turn = field(default_factory=_only_turn)


@dataclass(slots=True)
class QueueReturn(Command[None]):
    """Put taken but undelivered items back at the front, in their order; the same `turn` again does nothing."""

    topic: str
    bodies: list[bytes]
    expiry: float
    turn: Turn = field(default_factory=_only_turn)


@dataclass(slots=True)
class PlainAdd(Command[None]):
    """Register a plain channel as a member of a group topic for `ttl` seconds."""

    topic: str
    channel: str
    ttl: float


@dataclass(slots=True)
class PlainDrop(Command[None]):
    topic: str
    channel: str


@dataclass(slots=True)
class RosterSet(Command[bool]):
    """Enter or refresh a member for `ttl` seconds; True iff it is new."""

    topic: str
    member: str
    value: bytes
    ttl: float


@dataclass(slots=True)
class RosterDrop(Command[bool]):
    """Strike a member off; True iff it stood there."""

    topic: str
    member: str


@dataclass(slots=True)
class RosterGet(Command[dict[str, bytes]]):
    """All unexpired members and their values."""

    topic: str


@dataclass(slots=True)
class LeaseAcquire(Command[Grant]):
    """Take the lease of `topic` if it is free or expired. Tokens only ever rise."""

    topic: str
    session: str
    holder: str
    ttl: float


@dataclass(slots=True)
class LeaseRenew(Command[bool]):
    """Extend a lease; False iff session and token no longer hold it."""

    topic: str
    session: str
    token: int
    ttl: float


@dataclass(slots=True)
class LeaseRelease(Command[bool]):
    """Give a lease up; False iff it was not held."""

    topic: str
    session: str
    token: int


@dataclass(slots=True)
class LeaseGet(Command["Grant | None"]):
    topic: str


@dataclass(slots=True)
class Flush(Command[None]):
    """Empty groups, inboxes and queues of this prefix. Live channels, leases and rosters stay."""

    topic: str = ""


class Listener(Protocol):
    """Who is told. All calls come on the port's loop, in order, and must not block."""

    def on_message(self, topic: str, position: Position | None, time: int, body: bytes, id: bytes = b"") -> None: ...

    def on_interrupted(self) -> None:
        """The path broke; nothing arrives until `on_resumed`."""

    def on_resumed(self, topics: list[str]) -> None:
        """These topics are subscribed again; messages in between may be missing."""


class Port(Protocol):
    """An engine as one event loop uses it. Made by `Engine.port`, closed by `close`."""

    @property
    def health(self) -> Health: ...

    async def run(self, command: Command[T]) -> T:
        """Run a command. Raises EngineUnavailable within two seconds when the store cannot be reached."""

    def subscribe(self, *topics: str) -> Awaitable[None]:
        """Ask for topics' messages, now; the result is done once the store has confirmed, else EngineUnavailable."""

    def shard(self, topic: str) -> int:
        """Topics of one shard may go into one command."""

    def unsubscribe(self, *topics: str) -> None:
        """Stop topics' messages, some time soon."""

    async def close(self) -> None: ...


class Engine(Protocol):
    """A store, shared by all threads and loops of this process. Making one does no I/O."""

    name: str

    def port(self, listener: Listener, node: str) -> Port:
        """Attach the running loop."""

    async def run_detached(self, command: Command[T]) -> T:
        """Run a command from a loop that has no port; the loop never blocks.

        A loop that passes gets no connection of its own; one that goes on sending may, until `close_loop`, until
        a port is made on it, or until it ends.
        """

    async def close_loop(self) -> None:
        """Close what `run_detached` keeps for the running loop; it is made again when next needed."""

    def run_sync(self, command: Command[T]) -> T:
        """Run a command from plain synchronous code."""

    def close(self) -> None:
        """Close the connections that belong to no loop; they are made again when next needed."""

    def describe(self) -> dict[str, Any]:
        """Where this engine keeps things, fit for a status page: no secrets."""
