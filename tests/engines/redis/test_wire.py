"""One connection: what leaves together, and that every answer finds who asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from livechannels.engines.endpoints import parse_url
from livechannels.engines.redis.connect import open_connection
from livechannels.engines.redis.replies import Lost, ReplyError
from livechannels.engines.redis.wire import FEED, ProtocolWire, StreamWire, Wire, pack


@pytest.fixture(params=[ProtocolWire, StreamWire])
async def wire(request: Any, redis_url: str) -> AsyncIterator[Wire]:
    wire = request.param(await open_connection(parse_url(redis_url)))
    wire.writes = []
    write = wire._write

    def note(data: bytes) -> None:
        wire.writes.append(data)
        write(data)

    wire._write = note
    yield wire
    wire.fail("the test is over")


async def test_what_is_called_in_one_turn_leaves_in_two_writes(wire: Any) -> None:
    """The first at once, since nobody is to wait for the others to come."""
    answers = [wire.call("INCR", "number") for _ in range(50)]
    assert [await answer for answer in answers] == list(range(1, 51))
    assert len(wire.writes) == 2


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_batch_leaves_in_one_write(wire: Any, busy: bool) -> None:
    before = [wire.call("INCR", "number")] if busy else []
    answers = wire.call_together(pack(("INCR", "number")) for _ in range(3))
    assert [await answer for answer in before + answers] == list(range(1, 4 + busy))
    assert len(wire.writes) == 1 + busy


async def test_a_refused_request_of_a_batch_leaves_the_others_their_answers(wire: Any) -> None:
    first, refused, last = wire.call_together(pack(words) for words in (("INCR", "n"), ("NO-SUCH",), ("INCR", "n")))
    assert (await first, await last) == (1, 2)
    with pytest.raises(ReplyError, match="NO-SUCH"):
        await refused


async def test_answers_larger_than_what_is_read_at_once_stay_whole_and_in_order(wire: Any) -> None:
    bodies = [bytes([number]) * (FEED * number // 3 + 1) for number in range(20)]
    for number, body in enumerate(bodies):
        wire.call("SET", f"body-{number}", body)
    answers = [wire.call("GET", f"body-{number}") for number in range(len(bodies))]
    assert [await answer for answer in answers] == bodies


async def test_nobody_waits_on_a_broken_wire(wire: Any) -> None:
    waiting = wire.call("BLPOP", "nothing", 0)
    wire.fail("cut")
    with pytest.raises(Lost, match="cut") as caught:
        await waiting
    assert caught.value.sent
    for answer in wire.call_together([pack(("PING",)), pack(("PING",))]):
        with pytest.raises(Lost) as caught:
            await answer
        assert not caught.value.sent
