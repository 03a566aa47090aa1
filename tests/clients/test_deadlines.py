from __future__ import annotations

import asyncio
import gc
import weakref

from livechannels.clients.deadlines import Deadlines, between


async def test_each_falls_due_once_in_order() -> None:
    deadlines, rung = Deadlines(), []
    done = asyncio.Event()
    deadlines.set("late", 0.03, done.set)
    deadlines.set("b", 0.02, lambda: rung.append("b"))
    deadlines.set("a", 0.01, lambda: rung.append("a"))
    await asyncio.wait_for(done.wait(), 5)
    assert rung == ["a", "b"]


async def test_moving_and_dropping() -> None:
    deadlines, rung = Deadlines(), []
    done = asyncio.Event()
    deadlines.set("moved", 0.01, lambda: rung.append("early"))
    deadlines.set("moved", 0.03, lambda: rung.append("late"))
    deadlines.set("dropped", 0.01, lambda: rung.append("dropped"))
    deadlines.drop("dropped")
    deadlines.drop("unknown")
    deadlines.set("end", 0.05, done.set)
    await asyncio.wait_for(done.wait(), 5)
    assert rung == ["late"]


async def test_a_callback_may_set_and_clear() -> None:
    deadlines, rung = Deadlines(), []
    done = asyncio.Event()

    def again() -> None:
        rung.append("again")
        if len(rung) < 3:
            deadlines.set("again", 0.001, again)
        else:
            deadlines.clear()
            done.set()

    deadlines.set("again", 0.001, again)
    deadlines.set("never", 0.05, lambda: rung.append("never"))
    await asyncio.wait_for(done.wait(), 5)
    await asyncio.sleep(0.06)
    assert rung == ["again"] * 3


async def test_many_have_one_timer_and_ring_in_order() -> None:
    rung: list[int] = []
    done = asyncio.Event()
    many = [Deadlines() for _ in range(50)]
    for number in reversed(range(50)):
        many[number].set("it", 0.01 + number / 1000, lambda number=number: rung.append(number))  # type: ignore[misc]
    Deadlines().set("end", 0.1, done.set)
    await asyncio.wait_for(done.wait(), 5)
    assert rung == list(range(50))


async def test_a_failing_callback_stops_nobody_else() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    Deadlines().set("bad", 0.001, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    Deadlines().set("good", 0.002, done.set)
    await asyncio.wait_for(done.wait(), 5)


def test_a_closed_loop_is_let_go() -> None:
    async def leave_one() -> weakref.ref[asyncio.AbstractEventLoop]:
        Deadlines().set("never", 60, lambda: None)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(leave_one())
    gc.collect()
    assert loop() is None


def test_between() -> None:
    assert all(1 <= between(1, 2) <= 2 for _ in range(100))


async def test_a_moment_that_has_gone_leaves_nothing_in_the_clock() -> None:
    """A session's: it ends some day, is asked for its health now and then, and answers."""
    deadlines = Deadlines()
    deadlines.set("expiry", 86_400, lambda: None)
    deadlines.set("recheck", 60, lambda: None)
    done = asyncio.Event()

    def ping(count: int) -> None:
        deadlines.drop("pong")
        if not count:
            done.set()
            return
        deadlines.set("ping", 0.002, lambda: ping(count - 1))
        deadlines.set("pong", 0.001, lambda: None)
        deadlines.drop("pong")

    ping(50)
    await asyncio.wait_for(done.wait(), 10)
    kept = [entry for entry in deadlines._clock._waiting if entry[2] is deadlines]
    assert len(kept) <= 4
    deadlines.clear()


async def test_what_was_cleared_is_let_go_before_its_time(monkeypatch) -> None:
    monkeypatch.setattr("livechannels.clients.deadlines.AT_MOST", 0.02)
    deadlines = Deadlines()
    clock = deadlines._clock
    deadlines.set("expiry", 86_400, lambda: None)
    deadlines.clear()
    async with asyncio.timeout(5):
        while any(entry[2] is deadlines for entry in clock._waiting):
            await asyncio.sleep(0.01)
