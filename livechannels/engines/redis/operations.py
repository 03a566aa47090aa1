"""Engine commands as Redis requests, and Redis replies as results. Pure: no connection, no clock but one.

Each operation is a generator: it yields a batch of requests, is sent their replies (or has an error thrown in),
and returns the command's result. The same generators serve the async and the sync client.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, TypeVar

import hiredis

from ...exceptions import EngineUnavailable, LeaseLost, PublishUnknown
from ...positions import START, Beginning, Entry, Position, Slice
from .. import base
from . import scripts
from .keys import Keys
from .replies import Lost, ReplyError
from .scripts import Script

T = TypeVar("T")

pack = hiredis.pack_command

IDEMPOTENCY_WINDOW_MS = 300_000
PUSHED_MS, HANDED_MS = 10_000, 60_000
HEADER = 24
EPOCH_NAME = 5
"""Where among the arguments of a storing script the name of an epoch stands that it may begin."""
REMEMBERED = 20_000


class Request(NamedTuple):
    """One Redis command. `key` decides the cluster slot; a `script` goes by EVALSHA, or whole when it is unknown."""

    key: str
    args: tuple[Any, ...]
    script: Script | None = None

    def by_hash(self) -> tuple[Any, ...]:
        return self.args if self.script is None else ("EVALSHA", self.script.sha, *self.args)

    def packed(self) -> bytes:
        """`by_hash` in Redis' own notation."""
        return pack(self.by_hash())  # type: ignore[no-any-return]

    def in_full(self) -> tuple[Any, ...]:
        return self.args if self.script is None else ("EVAL", self.script.source, *self.args)


_PAYLOAD, _EPOCH, _RENEW, _SEEN = 7, 11, 14, 15
"""Where in the words of a plain publish stands what a `_Form` leaves out."""


class _Form(NamedTuple):
    """The parts of a plain publish that stay the same `until` its topic is to be renewed, in Redis' own notation."""

    head: bytes
    middle: bytes
    tail: bytes
    retention: base.Retention | None
    byte_limit: int
    until: float


Batch = list[Request]
Operation = Generator[Batch, list[Any], T]


def _script(script: Script, keys: Iterable[str], *args: Any) -> Request:
    keys = list(keys)
    return Request(keys[0], (len(keys), *keys, *args), script)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def parse_epochs(record: bytes) -> tuple[Beginning, ...]:
    """'E1:0 E2:10' as beginnings, oldest first."""
    pairs = (part.rsplit(":", 1) for part in record.decode().split())
    return tuple(Beginning(epoch, int(began)) for epoch, began in pairs)


def parse_message(data: bytes) -> tuple[Position | None, int, bytes, bytes] | None:
    """Position, time, body and id of a pub/sub message; None if its format version is unknown or it is not ours."""
    parts = data.split(b" ", 3)
    if len(parts) != 4 or parts[0] != b"1":
        return None
    _, epoch, offset, payload = parts
    try:
        position = None if epoch == b"-" else Position(epoch.decode(), int(offset))
        return position, int(payload[11:HEADER] or 0), payload[HEADER:], payload[:11]
    except ValueError:
        return None


def _parse_position(text: bytes) -> Position | None:
    epoch, offset = text.decode().split(" ")
    return None if epoch == "-" else Position(epoch, int(offset))


class Operations:
    """Makes the operation of a command. Holds what they share: names, capabilities, what was renewed when.

    `skew` is the server's clock minus our monotonic one in seconds, which no change of the wall clock moves;
    `compare_replids` is off where INFO is refused, which is not known before `examined`;
    `publish_word` is SPUBLISH in a cluster.
    """

    def __init__(self, keys: Keys, publish_word: str = "PUBLISH") -> None:
        self.keys = keys
        self.skew = time.time() - time.monotonic()
        self.examined = False
        self.compare_replids = True
        self.publish_word = publish_word
        self._renewed: dict[str, float] = {}
        self._answered: dict[str, Position] = {}
        self._names: dict[str, tuple[str, str, str, str]] = {}
        self._forms: dict[str, _Form] = {}
        self._random = random.Random()  # noqa: S311  names, no secrets
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

    def measure(self, seconds: Any, micros: Any, asked: float) -> None:
        """Learn the server's clock from its TIME; `asked` is `time.monotonic()` when the question left."""
        self.skew = int(seconds) + int(micros) / 1e6 - (asked + time.monotonic()) / 2

    def _now_ms(self) -> int:
        return int((time.monotonic() + self.skew) * 1000)

    def payload(self, command: base.Publish) -> bytes:
        """A stored message: 11 characters of id, 13 digits of server time in ms, the body."""
        command.id = command.id or self.new_id()
        return f"{command.id}{self._now_ms():013d}".encode() + command.body

    def new_id(self) -> str:
        """11 characters that no other recent publication has."""
        return f"{self._random.getrandbits(44):011x}"

    def new_epoch(self) -> str:
        """A name for an epoch, should one begin."""
        return f"{self._random.getrandbits(40):010x}"

    # Topics

    def _publish(self, command: base.Publish) -> Operation[base.Published]:
        if command.retention is None and command.fence is None and command.key is None:
            return (yield from self._publish_bare(command))
        request = self._storing_request(command)
        wait: Batch = []
        if command.replicate:
            wait = [Request(request.key, ("WAIT", 1, _ms(command.replicate)))]
        try:
            answer, *replicas = yield [request, *wait]
        except Lost as error:
            if not error.sent:
                raise
            answer = yield from self._publish_again(command, request, error)
            replicas = []
        published = self.published(answer)
        if not published.repeated:
            self._remember_answer(command.topic, published.position)
        return published._replace(replicas=int(replicas[0])) if replicas else published

    def packed(self, command: base.Publish) -> bytes | None:
        """The one request of a plain publish in Redis' own notation, made of parts that rarely change.

        None if it is not so plain, or if it is time to renew what its topic keeps: then `make` knows how.
        The answer is read by `published`.
        """
        form = self._forms.get(command.topic)
        if (
            form is None
            or form.retention != command.retention
            or form.byte_limit != command.byte_limit
            or command.key is not None
            or command.fence is not None
            or command.seen is not START
            or time.monotonic() > form.until
        ):
            return None
        command.id = command.id or self.new_id()
        return b"%b$%d\r\n%b%013d%b\r\n%b%b\r\n%b" % (
            form.head, HEADER + len(command.body), command.id.encode(), self._now_ms(), command.body,
            form.middle, self.new_epoch().encode(), form.tail,
        )  # fmt: skip

    def _publish_bare(self, command: base.Publish) -> Operation[base.Published]:
        topic = command.topic
        record, _, plain_members, name = self._names.get(topic) or self._remember(topic)
        batch = [Request(record, (self.publish_word, name, b"1 - 0 " + self.payload(command)))]
        if topic.startswith("g/"):
            batch.append(Request(plain_members, ("ZRANGEBYSCORE", plain_members, f"({self._now_ms()}", "+inf")))
        try:
            replies = yield batch
        except Lost as error:
            if error.sent:
                raise PublishUnknown(
                    f"{topic}: {error}; without history it cannot be known whether it arrived"
                ) from error
            raise
        plain = [name.decode() for name in replies[1]] if len(replies) > 1 else []
        return base.Published(None, plain)

    def _storing_request(self, command: base.Publish) -> Request:
        topic, keys = command.topic, self.keys
        size, ttl, meta_ttl = command.retention or base.Retention(0, 0, 0)
        names = self._names.get(topic) or self._remember(topic)
        args = (
            names[3], self.payload(command), size, _ms(ttl), _ms(max(meta_ttl, ttl)),
            self.new_epoch(), int(self.compare_replids), self.publish_word, int(self._renew(topic, ttl)),
            *self._seen(command), command.byte_limit,
        )  # fmt: skip
        fence = command.fence
        if command.key is None and fence is None:
            request = Request(names[0], (3, *names[:3], *args), scripts.PUBLISH)
            if self.compare_replids and not request.args[_RENEW - 2]:
                self._keep_form(command, request)  # a topic that is published to often
            return request
        if command.key is not None:
            owner = fence or ("", "")
            once = keys.once(topic, command.key)
            return _script(
                scripts.PUBLISH_ONCE, [*names[:3], keys.lease(topic), once], *args, *owner, IDEMPOTENCY_WINDOW_MS
            )
        return _script(scripts.PUBLISH_FENCED, [*names[:3], keys.lease(topic)], *args, *(fence or ()))

    def _keep_form(self, command: base.Publish, request: Request) -> None:
        if len(self._forms) > REMEMBERED:
            self._forms.clear()
        words = [*request.by_hash()]
        words[_SEEN : _SEEN + 2] = START
        parts = words[:_PAYLOAD], words[_PAYLOAD + 1 : _EPOCH], words[_EPOCH + 1 :]
        head, middle, tail = (pack(tuple(part)).split(b"\r\n", 1)[1] for part in parts)
        self._forms[command.topic] = _Form(
            b"*%d\r\n%b" % (len(words), head),
            b"%b$%d\r\n" % (middle, len(words[_EPOCH])),
            tail,
            command.retention,
            command.byte_limit,
            self._renewed[command.topic],
        )

    def _remember(self, topic: str) -> tuple[str, str, str, str]:
        if len(self._names) > REMEMBERED:
            self._names.clear()
        keys = self.keys
        names = keys.record(topic), keys.stream(topic), keys.plain(topic), keys.name(topic)
        self._names[topic] = names
        return names

    def _renew(self, topic: str, ttl: float) -> bool:
        now = time.monotonic()
        if self._renewed.get(topic, 0) > now:
            return False
        if len(self._renewed) > REMEMBERED:
            self._renewed.clear()
        self._renewed[topic] = now + ttl / 8
        return True

    def _seen(self, command: base.Publish) -> Position:
        """The highest position known here: what the node follows, or what this process was answered itself."""
        answered = self._answered.get(command.topic, START)
        if answered.epoch == command.seen.epoch:
            return max(answered, command.seen)
        return answered if answered.epoch else command.seen

    def _remember_answer(self, topic: str, position: Position | None) -> None:
        if self.compare_replids or position is None:
            return
        if len(self._answered) > REMEMBERED:
            self._answered.clear()
        self._answered[topic] = position

    def _publish_again(self, command: base.Publish, request: Request, error: Lost) -> Operation[Any]:
        """The answer was lost. With an idempotency key asking again is safe; with history the id can be found.

        No name for a new epoch is sent twice: the lost attempt may have begun one on a server that was lost, too.
        """
        at = 1 + request.args[0] + EPOCH_NAME
        request = request._replace(args=(*request.args[:at], self.new_epoch(), *request.args[at + 1 :]))
        if command.key is not None:
            (answer,) = yield [request]
            return answer
        if command.retention is None:
            raise PublishUnknown(f"{command.topic}: {error}; without history it cannot be known whether it arrived")
        names = request.args[1:4]
        rest = request.args[1 + request.args[0] :][:12]
        again = _script(
            scripts.PUBLISH_AGAIN, [*names, self.keys.lease(command.topic)], *rest, *(command.fence or ("", ""))
        )
        (answer,) = yield [again]
        return answer

    @staticmethod
    def published(answer: Any) -> base.Published:
        """What a publishing script answered. Raises LeaseLost."""
        plain: list[str] = []
        if isinstance(answer, list):
            plain = [name.decode() for name in answer[1:]]
            answer = answer[0]
        if answer == b"FENCED":
            raise LeaseLost
        repeated = answer.startswith(b"REPEATED ")
        return base.Published(_parse_position(answer.removeprefix(b"REPEATED ")), plain, repeated)

    def _read_request(self, command: base.Read) -> Request:
        return _script(
            scripts.READ,
            [self.keys.record(command.topic), self.keys.stream(command.topic)],
            command.since.offset, command.limit, int(command.reverse), int(command.create), self.new_epoch(),
            int(self.compare_replids), _ms(command.renew) if command.renew else 0,
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
                else Request(record, ("PEXPIRE", record, _ms(command.renew)))
                for topic, record, (epoch, _, plain) in zip(command.topics, records, replies, strict=True)
                if epoch
            ]
            if renewals:
                yield renewals
        return [Position(epoch.decode(), int(offset)) if epoch else START for epoch, offset, _ in replies]

    def _trim(self, command: base.Trim) -> Operation[None]:
        keys = [self.keys.record(command.topic), self.keys.stream(command.topic)]
        yield [_script(scripts.TRIM, keys, command.offset, command.epoch)]

    # Queues and plain members

    def _queue_push(self, command: base.QueuePush) -> Operation[bool]:
        topic = command.topic
        (reply,) = yield [
            _script(
                scripts.QUEUE_PUSH, [self.keys.queue(topic), self.keys.once(topic, self.new_id())],
                self.keys.name(topic), command.body, command.capacity, _ms(command.expiry), self.publish_word,
                PUSHED_MS,
            )
        ]  # fmt: skip
        return bool(reply)

    def _queue_pop(self, command: base.QueuePop) -> Operation[list[bytes]]:
        keys, number = self._turn(command.topic, command.turn)
        (reply,) = yield [_script(scripts.QUEUE_POP, keys, command.limit, number, HANDED_MS)]
        return list(reply)

    def _queue_return(self, command: base.QueueReturn) -> Operation[None]:
        topic = command.topic
        keys, number = self._turn(topic, command.turn)
        yield [
            _script(
                scripts.QUEUE_RETURN, keys,
                self.keys.name(topic), _ms(command.expiry), self.publish_word, number, HANDED_MS, *command.bodies,
            )
        ]  # fmt: skip

    def _turn(self, topic: str, turn: base.Turn) -> tuple[list[str], int]:
        return [self.keys.queue(topic), self.keys.handed(topic, turn.reader)], turn.number

    def _plain_add(self, command: base.PlainAdd) -> Operation[None]:
        keys = [self.keys.record(command.topic), self.keys.plain(command.topic)]
        yield [_script(scripts.PLAIN_ADD, keys, command.channel, _ms(command.ttl))]

    def _plain_drop(self, command: base.PlainDrop) -> Operation[None]:
        keys = [self.keys.record(command.topic), self.keys.plain(command.topic)]
        yield [_script(scripts.PLAIN_DROP, keys, command.channel)]

    # Rosters

    def _roster(self, topic: str) -> list[str]:
        return [self.keys.values(topic), self.keys.stays(topic)]

    def _roster_set(self, command: base.RosterSet) -> Operation[bool]:
        keys = self._roster(command.topic)
        (reply,) = yield [_script(scripts.ROSTER_SET, keys, command.member, command.value, _ms(command.ttl))]
        return bool(reply)

    def _roster_drop(self, command: base.RosterDrop) -> Operation[bool]:
        (reply,) = yield [_script(scripts.ROSTER_DROP, self._roster(command.topic), command.member)]
        return bool(reply)

    def _roster_get(self, command: base.RosterGet) -> Operation[dict[str, bytes]]:
        (reply,) = yield [_script(scripts.ROSTER_GET, self._roster(command.topic))]
        return {reply[at].decode(): reply[at + 1] for at in range(0, len(reply), 2)}

    # Leases

    def _lease_acquire(self, command: base.LeaseAcquire) -> Operation[base.Grant]:
        lease = self.keys.lease(command.topic)
        (reply,) = yield [_script(scripts.LEASE_ACQUIRE, [lease], command.session, command.holder, _ms(command.ttl))]
        return self._grant(reply)

    @staticmethod
    def _grant(reply: list[Any]) -> base.Grant:
        token, holder, session, left, begin = reply
        return base.Grant(
            int(token) if token else None, holder.decode(), session.decode(), int(left) / 1000, int(begin) / 1000
        )

    def _lease_renew(self, command: base.LeaseRenew) -> Operation[bool]:
        lease = self.keys.lease(command.topic)
        (reply,) = yield [_script(scripts.LEASE_RENEW, [lease], command.session, command.token, _ms(command.ttl))]
        return bool(reply)

    def _lease_release(self, command: base.LeaseRelease) -> Operation[bool]:
        lease = self.keys.lease(command.topic)
        (reply,) = yield [_script(scripts.LEASE_RELEASE, [lease], command.session, command.token)]
        return bool(reply)

    def _lease_get(self, command: base.LeaseGet) -> Operation[base.Grant | None]:
        (reply,) = yield [_script(scripts.LEASE_GET, [self.keys.lease(command.topic)])]
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
