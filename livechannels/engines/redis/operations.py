"""Engine commands as Redis requests, and Redis replies as results. Pure but for the clock.

Each operation is a generator: it yields a batch of requests, is sent their replies (or has an error thrown in),
and returns the command's result. The same generators serve the async and the sync client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...exceptions import EngineUnavailable
from ...messages.positions import START, Beginning, Entry, Position, Slice
from .. import base
from . import scripts
from .keys import Keys
from .publishing import HEADER, Publishing
from .replies import ReplyError
from .requests import Operation, Request, ms, script_request

T = TypeVar("T")

PUSHED_MS, HANDED_MS = 10_000, 60_000


def parse_epochs(record: bytes) -> tuple[Beginning, ...]:
    """'E1:0 E2:10' as beginnings, oldest first."""
    pairs = (part.rsplit(":", 1) for part in record.decode().split())
    return tuple(Beginning(epoch, int(began)) for epoch, began in pairs)


class Operations(Publishing):
    """Makes the operation of any command."""

    def __init__(self, keys: Keys, publish_word: str = "PUBLISH") -> None:
        super().__init__(keys, publish_word)
        self._makers: dict[type[Any], Callable[[Any], Operation[Any]]] = {
            base.Publish: self._publish,
            base.Read: self._read,
            base.Positions: self._positions,
            base.Trim: self._trim,
            base.QueuePush: self._queue_push,
            base.QueuePop: self._queue_pop,
            base.QueueReturn: self._queue_return,
            base.PlainAdd: self._plain_add,
            base.PlainDrop: self._plain_drop,
            base.RosterSet: self._roster_set,
            base.RosterDrop: self._roster_drop,
            base.RosterGet: self._roster_get,
            base.LeaseAcquire: self._lease_acquire,
            base.LeaseRenew: self._lease_renew,
            base.LeaseRelease: self._lease_release,
            base.LeaseGet: self._lease_get,
            base.Flush: self._flush,
        }

    def make(self, command: base.Command[T]) -> Operation[T]:
        return self._makers[type(command)](command)

    # Topics

    def _read_request(self, command: base.Read) -> Request:
        return script_request(
            scripts.READ,
            [self.keys.record(command.topic), self.keys.stream(command.topic)],
            command.since.offset, command.limit, int(command.reverse), int(command.create), self.new_epoch(),
            int(self.compare_replids), ms(command.renew) if command.renew else 0,
            command.since.epoch if command.witness else "",
        )  # fmt: skip

    def _read(self, command: base.Read) -> Operation[Slice]:
        (reply,) = yield [self._read_request(command)]
        epoch, offset, record, now, found = reply
        entries = [Entry(int(name[2:]), int(raw[11:HEADER]), raw[HEADER:], raw[:11]) for name, (_, raw) in found]
        if command.max_age:
            oldest = int(now) - command.max_age * 1000
            entries = [entry for entry in entries if entry.time >= oldest]
        if not epoch:
            return Slice(START, (), [])
        return Slice(Position(epoch.decode(), int(offset)), parse_epochs(record), entries)

    def _positions(self, command: base.Positions) -> Operation[list[Position]]:
        records = [self.keys.record(topic) for topic in command.topics]
        replies = yield [Request(record, ("HMGET", record, "e", "o", "p")) for record in records]
        if command.renew:
            # A record with plain members may have to live longer than this, and a read shortens no life.
            renewals = [
                self._read_request(base.Read(topic, limit=0, renew=command.renew))
                if plain
                else Request(record, ("PEXPIRE", record, ms(command.renew)))
                for topic, record, (epoch, _, plain) in zip(command.topics, records, replies, strict=True)
                if epoch
            ]
            if renewals:
                yield renewals
        return [Position(epoch.decode(), int(offset)) if epoch else START for epoch, offset, _ in replies]

    def _trim(self, command: base.Trim) -> Operation[None]:
        keys = [self.keys.record(command.topic), self.keys.stream(command.topic)]
        yield [script_request(scripts.TRIM, keys, command.offset, command.epoch)]

    # Queues and plain members

    def _queue_push(self, command: base.QueuePush) -> Operation[bool]:
        topic = command.topic
        (reply,) = yield [
            script_request(
                scripts.QUEUE_PUSH, [self.keys.queue(topic), self.keys.once(topic, self.new_id())],
                self.keys.name(topic), command.body, command.capacity, ms(command.expiry), self.publish_word,
                PUSHED_MS,
            )
        ]  # fmt: skip
        return bool(reply)

    def _queue_pop(self, command: base.QueuePop) -> Operation[list[bytes]]:
        keys, number = self._turn(command.topic, command.turn)
        (reply,) = yield [script_request(scripts.QUEUE_POP, keys, command.limit, number, HANDED_MS)]
        return list(reply)

    def _queue_return(self, command: base.QueueReturn) -> Operation[None]:
        topic = command.topic
        keys, number = self._turn(topic, command.turn)
        yield [
            script_request(
                scripts.QUEUE_RETURN, keys,
                self.keys.name(topic), ms(command.expiry), self.publish_word, number, HANDED_MS, *command.bodies,
            )
        ]  # fmt: skip

    def _turn(self, topic: str, turn: base.Turn) -> tuple[list[str], int]:
        return [self.keys.queue(topic), self.keys.handed(topic, turn.reader)], turn.number

    def _plain_add(self, command: base.PlainAdd) -> Operation[None]:
        keys = [self.keys.record(command.topic), self.keys.plain(command.topic)]
        yield [script_request(scripts.PLAIN_ADD, keys, command.channel, ms(command.ttl))]

    def _plain_drop(self, command: base.PlainDrop) -> Operation[None]:
        keys = [self.keys.record(command.topic), self.keys.plain(command.topic)]
        yield [script_request(scripts.PLAIN_DROP, keys, command.channel)]

    # Rosters

    def _roster(self, topic: str) -> list[str]:
        return [self.keys.values(topic), self.keys.stays(topic)]

    def _roster_set(self, command: base.RosterSet) -> Operation[bool]:
        keys = self._roster(command.topic)
        (reply,) = yield [script_request(scripts.ROSTER_SET, keys, command.member, command.value, ms(command.ttl))]
        return bool(reply)

    def _roster_drop(self, command: base.RosterDrop) -> Operation[bool]:
        (reply,) = yield [script_request(scripts.ROSTER_DROP, self._roster(command.topic), command.member)]
        return bool(reply)

    def _roster_get(self, command: base.RosterGet) -> Operation[dict[str, bytes]]:
        (reply,) = yield [script_request(scripts.ROSTER_GET, self._roster(command.topic))]
        return {reply[at].decode(): reply[at + 1] for at in range(0, len(reply), 2)}

    # Leases

    def _lease_acquire(self, command: base.LeaseAcquire) -> Operation[base.Grant]:
        lease = self.keys.lease(command.topic)
        (reply,) = yield [
            script_request(scripts.LEASE_ACQUIRE, [lease], command.session, command.holder, ms(command.ttl))
        ]
        return self._grant(reply)

    @staticmethod
    def _grant(reply: list[Any]) -> base.Grant:
        token, holder, session, left, begin = reply
        return base.Grant(
            int(token) if token else None, holder.decode(), session.decode(), int(left) / 1000, int(begin) / 1000
        )

    def _lease_renew(self, command: base.LeaseRenew) -> Operation[bool]:
        lease = self.keys.lease(command.topic)
        (reply,) = yield [script_request(scripts.LEASE_RENEW, [lease], command.session, command.token, ms(command.ttl))]
        return bool(reply)

    def _lease_release(self, command: base.LeaseRelease) -> Operation[bool]:
        lease = self.keys.lease(command.topic)
        (reply,) = yield [script_request(scripts.LEASE_RELEASE, [lease], command.session, command.token)]
        return bool(reply)

    def _lease_get(self, command: base.LeaseGet) -> Operation[base.Grant | None]:
        (reply,) = yield [script_request(scripts.LEASE_GET, [self.keys.lease(command.topic)])]
        return self._grant(reply) if reply else None

    # Flush

    def _flush(self, command: base.Flush) -> Operation[None]:
        for pattern in self.keys.flushed():
            cursor = b"0"
            while True:
                replies = yield [Request("", ("SCAN", cursor, "MATCH", pattern, "COUNT", 500))]
                cursor, found = replies[0]
                if found:
                    yield [Request(key.decode(), ("DEL", key)) for key in found]
                if int(cursor) == 0:
                    break
        self._renewed.clear()


def unavailable(error: Exception, where: str) -> EngineUnavailable:
    """The error callers see when the store cannot be used."""
    if isinstance(error, ReplyError) and error.code == "OOM":
        where = f"{where} is out of memory: raise maxmemory or lower history sizes"
    return EngineUnavailable(f"{where}: {error}")
