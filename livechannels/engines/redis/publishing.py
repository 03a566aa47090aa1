"""Publishing: the requests that store and deliver a message, and what their answers mean. Pure but for the clock."""

from __future__ import annotations

import random
import time
from typing import Any, NamedTuple

from ...exceptions import LeaseLost, PublishUnknown
from ...messages.positions import START, Position
from .. import base
from . import scripts
from .keys import Keys
from .replies import Lost
from .requests import Batch, Operation, Request, ms, pack, script_request

IDEMPOTENCY_WINDOW_MS = 300_000
HEADER = 24
EPOCH_NAME = 5
"""Where among the arguments of a storing script the name of an epoch stands that it may begin."""
REMEMBERED = 20_000

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


class Publishing:
    """Makes the operations of publishing. Holds what they share: names, capabilities, what was renewed when.

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

    def _publish(self, command: base.Publish) -> Operation[base.Published]:
        if command.retention is None and command.fence is None and command.key is None:
            return (yield from self._publish_bare(command))
        request = self._storing_request(command)
        wait: Batch = []
        if command.replicate:
            wait = [Request(request.key, ("WAIT", 1, ms(command.replicate)))]
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
            or not self.compare_replids  # then it must say what it has seen
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
            names[3], self.payload(command), size, ms(ttl), ms(max(meta_ttl, ttl)),
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
            return script_request(
                scripts.PUBLISH_ONCE, [*names[:3], keys.lease(topic), once], *args, *owner, IDEMPOTENCY_WINDOW_MS
            )
        return script_request(scripts.PUBLISH_FENCED, [*names[:3], keys.lease(topic)], *args, *(fence or ()))

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
            self._renewed.get(command.topic, 0.0),  # another thread may have flushed
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
        again = script_request(
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
