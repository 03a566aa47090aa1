"""A kept path to one Redis: one connection for commands, one for subscriptions, both watched and remade together.

TCP is not believed: every second the link publishes to itself and expects to hear it. A link that does not is
dead, whatever its sockets say.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import Any

from redis.crc import key_slot

from ...exceptions import EngineUnavailable
from ..base import Health
from ..endpoints import Endpoint
from .connect import close_connection, find_master, open_connection
from .operations import Operations
from .replies import Address, Lost, ReplyError
from .requests import Request
from .wire import ProtocolWire, StreamWire, Subscriber, Wire

logger = logging.getLogger(__name__)

PROBE_EVERY = 1.0
HEARD_WITHIN = 2.0
MASTER_CHECK_EVERY = 5.0
WAIT_FOR_PATH = 0.9
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
STOOD = 1.0
"""Seconds after which a path counts as one that stood; a server that refuses earlier is asked again after a pause."""
EXPECTED = (EngineUnavailable, Lost, ReplyError, OSError, TimeoutError)

wire_class: type[Wire] = ProtocolWire
"""The wire all links use; StreamWire is the fallback."""


class Batch:
    """Names whose confirmations are awaited together."""

    __slots__ = ("confirmed", "missing")

    def __init__(self, confirmed: asyncio.Future[None], missing: int) -> None:
        self.confirmed = confirmed
        self.missing = missing

    def confirm(self) -> None:
        """One of them has come."""
        self.missing -= 1
        if not self.missing and not self.confirmed.done():
            self.confirmed.set_result(None)


class Link:
    """One Redis as one event loop uses it. `run` keeps it alive until cancelled; `call` and `subscribe` use it."""

    def __init__(
        self,
        endpoint: Endpoint,
        operations: Operations,
        *,
        on_message: Callable[[str, bytes], None],
        on_path: Callable[[bool, list[str]], None],
        address: Address | None = None,
        sharded: bool = False,
        on_moved: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.endpoint = endpoint
        self.operations = operations
        self.address = address
        self.health = Health(False, time.time(), "connecting")
        # Name to those who wait for its confirmation; None once it has come.
        self.wanted: dict[str, tuple[Batch, ...] | None] = {}
        self.up = asyncio.Event()
        self._on_message = on_message
        self._on_path = on_path
        self._sharded = sharded
        self._on_moved = on_moved
        self._commands: Wire | None = None
        self._subscriber: Subscriber | None = None
        self._probe = "" if sharded else f"{operations.keys.names}probe:{secrets.token_hex(6)}"
        self._heard = 0.0
        self._master: Address | None = None
        self._again: Batch | None = None
        self._down_since = time.monotonic()
        self._was_up = False

    def parts(self) -> list[Link]:
        """This link; a cluster has several."""
        return [self]

    # Commands

    async def wait_up(self) -> None:
        """Wait until the path is there: two seconds from when it went down, at least one turn."""
        if self.up.is_set():
            return
        patience = WAIT_FOR_PATH - (time.monotonic() - self._down_since)
        try:
            async with asyncio.timeout(max(patience, 0.01)):
                await self.up.wait()
        except TimeoutError:
            raise EngineUnavailable(self.health.detail) from None

    def call(self, packed: bytes) -> asyncio.Future[Any] | None:
        wire = self._usable()
        return wire.call_packed(packed) if wire is not None else None

    def _usable(self) -> Wire | None:
        wire = self._commands
        if wire is None or not self.up.is_set():
            return None
        if wire.broken.done():
            # `run` will find out in a moment; until then nobody shall use it.
            self._down_since = time.monotonic()
            self.up.clear()
            return None
        return wire

    def note(self, error: ReplyError) -> None:
        if error.path_is_wrong and self._commands is not None:
            self._commands.fail(str(error))

    async def exchange(self, batch: list[Request]) -> list[Any]:
        """Send requests together and return their replies. Raises Lost, ReplyError or EngineUnavailable."""
        wire = self._usable()
        if wire is None:
            await self.wait_up()
            wire = self._usable()
        if wire is None:
            raise Lost("the connection was just lost", sent=False)
        if len(batch) == 1:
            return [await self._mended(wire, batch[0], wire.call_packed(batch[0].packed()))]
        answers = wire.call_together(request.packed() for request in batch)
        return [await self._mended(wire, request, answer) for request, answer in zip(batch, answers, strict=True)]

    @staticmethod
    async def _mended(wire: Wire, request: Request, answer: asyncio.Future[Any]) -> Any:
        try:
            return await answer
        except ReplyError as error:
            if error.code == "NOSCRIPT":
                return await wire.call(*request.in_full())
            if error.path_is_wrong:
                wire.fail(str(error))
            raise

    def asking(self, request: Request) -> asyncio.Future[Any]:
        """Send one request behind ASKING, for a slot that is on its way here."""
        if self._commands is None:
            raise Lost("the connection was just lost", sent=False)
        self._commands.call("ASKING")
        return self._commands.call(*request.in_full())

    # Subscriptions

    def subscribe(self, names: list[str]) -> asyncio.Future[None] | None:
        """Want names from now on; the future is done when Redis has confirmed all, now or after a reconnect."""
        wanted = self.wanted
        unknown = [name for name in dict.fromkeys(names) if name not in wanted]
        late = [name for name in names if wanted.get(name)]
        if not unknown and not late:
            return None
        batch = Batch(asyncio.get_running_loop().create_future(), len(unknown) + len(late))
        wanted.update(dict.fromkeys(unknown, (batch,)))
        for name in late:
            wanted[name] = (*(wanted[name] or ()), batch)
        if unknown and self._subscriber is not None:
            self._subscriber.subscribe(unknown)
        return batch.confirmed

    def unsubscribe(self, names: list[str]) -> None:
        for name in names:
            self._confirm(name)
            self.wanted.pop(name, None)
        if self._subscriber is not None:
            self._subscriber.unsubscribe(names)

    def part(self, topic: str) -> int:
        return 0

    def let_go(self, name: str) -> None:
        """Want a name no more, which has moved elsewhere; whoever waits for it will hear of it there."""
        for batch in self.wanted.pop(name, None) or ():
            if batch is self._again:
                batch.confirm()

    def _confirm(self, name: str) -> None:
        waiting = self.wanted.get(name)
        if waiting is not None:
            self.wanted[name] = None
            for batch in waiting:
                batch.confirm()

    def _on_unsubscribed(self, name: str) -> None:
        if name in self.wanted and self._sharded:
            self._on_moved(name)

    def _on_slot_moved(self, slot: int) -> None:
        """A new name was refused: it tells the slot only, which no other name here can have any more."""
        for name in [name for name in self.wanted if key_slot(name.encode()) == slot]:
            self._on_moved(name)

    def _on_raw(self, name: str, data: bytes) -> None:
        if name == self._probe:
            self._on_heard()
        else:
            self._on_message(name, data)

    def _on_heard(self) -> None:
        self._heard = time.monotonic()

    # Keeping the path

    async def run(self) -> None:
        """Connect, watch, reconnect, until cancelled. Logs each change of state once."""
        pause = FIRST_PAUSE
        complained = ""
        while True:
            try:
                await self._connect()
            except Exception as error:  # a credential provider's or TLS' own errors, too: a link never ends by itself
                self._commands = self._subscriber = None
                why = str(error) or type(error).__name__
                if why != complained:
                    complained = why
                    foreign = None if isinstance(error, EXPECTED) else error
                    logger.warning("Redis is away, serving degraded and trying again: %s", why, exc_info=foreign)
                self.health = Health(False, self.health.since, why, self.operations.compare_replids)
                pause = await self._pause(pause)
                continue
            if complained or self._was_up:
                logger.info("Redis is back: %s", self.endpoint)
            complained, self._was_up, up_since = "", True, time.monotonic()
            try:
                why = await self._watch()
            finally:
                self._disconnect()
            complained = why
            logger.warning("The path to Redis broke, reconnecting: %s: %s", self.endpoint, why)
            self.health = Health(False, time.time(), why, self.operations.compare_replids)
            if ReplyError(why).path_is_wrong and time.monotonic() - up_since < STOOD:
                pause = await self._pause(pause)  # a new connection did not cure it (NOREPLICAS)
            else:
                pause = FIRST_PAUSE

    @staticmethod
    async def _pause(pause: float) -> float:
        """Wait about so many seconds; the next pause."""
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  spreads reconnects, no secret
        return min(pause * 2, LONGEST_PAUSE)

    async def _connect(self) -> None:
        address = self.address
        if self.endpoint.kind == "sentinel":
            address = self._master = await find_master(self.endpoint)
        first = await open_connection(self.endpoint, address)
        try:
            second = await open_connection(self.endpoint, address)
        except BaseException:
            await close_connection(first)
            raise
        self._commands = wire_class(first)
        subscriber = wire_class(second)
        try:
            await self._examine(self._commands)
            self.operations.examined = True
            self._subscriber = Subscriber(
                subscriber, self._on_raw, self._confirm,
                sharded=self._sharded, on_unsubscribed=self._on_unsubscribed, on_moved=self._on_slot_moved,
                on_pong=self._on_heard,
            )  # fmt: skip
            await self._resubscribe()
        except BaseException:
            self._commands.fail("not usable")
            subscriber.fail("not usable")
            raise
        self.health = Health(True, time.time(), f"connected to {self.endpoint}", self.operations.compare_replids)
        self.up.set()
        self._on_path(True, list(self.wanted))

    async def _examine(self, wire: Wire) -> None:
        """Check that this is a master we can use, and learn its clock."""
        # A server that loads its data answers TIME, INFO and PUBLISH; scripts only when it is ready.
        await wire.call("EVAL", "return 1", 0)
        asked = time.monotonic()
        seconds, micros = await wire.call("TIME")
        self.operations.measure(seconds, micros, asked)
        try:
            info = await wire.call("INFO", "replication")
        except ReplyError as error:
            if not error.not_allowed:
                raise EngineUnavailable(f"{self.endpoint}: {error}") from None
            if self.operations.compare_replids:
                logger.warning(
                    "livechannels.W101: %s does not allow INFO: a failover that loses writes is noticed only by "
                    "positions this node has seen. Allow +info to the user (see livechannels_acl).",
                    self.endpoint,
                )
            self.operations.compare_replids = False
            return
        self.operations.compare_replids = b"master_replid:" in info
        if b"role:slave" in info:
            raise EngineUnavailable(f"{self.endpoint} is a replica: waiting for the master")

    async def _resubscribe(self) -> None:
        assert self._subscriber is not None
        self._heard = time.monotonic()
        again = self._again = Batch(asyncio.get_running_loop().create_future(), len(self.wanted))
        for name, waiting in self.wanted.items():
            self.wanted[name] = (*(batch for batch in waiting or () if not batch.confirmed.done()), again)
        self._subscriber.subscribe([*([self._probe] if self._probe else []), *self.wanted])
        if self.wanted:
            await asyncio.wait([again.confirmed], timeout=HEARD_WITHIN + len(self.wanted) / 5000)
            again.confirmed.cancel()

    async def _watch(self) -> str:
        """Return why the path is broken, as soon as it is."""
        assert self._commands is not None
        assert self._subscriber is not None
        ends: list[asyncio.Future[str]] = [self._commands.broken, self._subscriber.wire.broken]
        follower = None
        if self.endpoint.kind == "sentinel":
            # Beside the probes, since sentinels that do not answer keep it waiting longer than those may pause.
            follower = asyncio.ensure_future(self._master_moved())
            ends.append(follower)
        try:
            return await self._probing(ends)
        finally:
            if follower is not None:
                follower.cancel()

    async def _probing(self, ends: list[asyncio.Future[str]]) -> str:
        assert self._commands is not None
        assert self._subscriber is not None
        while True:
            done, _ = await asyncio.wait(ends, timeout=PROBE_EVERY, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return str(done.pop().result())
            now = time.monotonic()
            if now - self._heard > PROBE_EVERY + HEARD_WITHIN:
                return f"own messages were not heard for {now - self._heard:.1f} s"
            if self._sharded:
                self._subscriber.ping()
                self._commands.call("PING").add_done_callback(_consume)
            else:
                self._commands.call("PUBLISH", self._probe, b"").add_done_callback(_consume)

    async def _master_moved(self) -> str:
        """Ask the sentinels now and then; returns when they name another master than ours."""
        while True:
            await asyncio.sleep(MASTER_CHECK_EVERY)
            try:
                if await find_master(self.endpoint) != self._master:
                    return "the sentinels name another master"
            except EngineUnavailable as error:
                logger.debug("The master could not be checked: %s", error)

    def _disconnect(self) -> None:
        if self.up.is_set():
            self._down_since = time.monotonic()
        self.up.clear()
        commands, self._commands = self._commands, None
        subscriber, self._subscriber = self._subscriber, None
        if commands is not None:
            commands.fail("the other connection broke")
        if subscriber is not None:
            subscriber.wire.fail("the other connection broke")
        self._on_path(False, [])


def _consume(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()


__all__ = ["Link", "StreamWire", "wire_class"]
