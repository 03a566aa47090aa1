from __future__ import annotations

import asyncio

import pytest

from livechannels.auth.expiries import AT_ONCE, Expiries


class Store:
    """Sessions whose end is the number in their key; it may be away, and it notes each question."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.open = asyncio.Event()
        self.away = False

    async def ask(self, keys: list[str]) -> dict[str, float]:
        self.questions.append(keys)
        await self.open.wait()
        if self.away:
            raise ConnectionError("no database")
        return {key: float(key) for key in keys if key.isdigit()}


async def test_who_comes_meanwhile_stands_in_the_next_question() -> None:
    store, expiries = Store(), Expiries.here()
    assert Expiries.here() is expiries
    first = asyncio.create_task(expiries.expiry("1", store.ask))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(expiries.expiry(key, store.ask)) for key in ("2", "3", "2", "none")]
    await asyncio.sleep(0.01)
    store.open.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3, 2, None]
    assert store.questions == [["1"], ["2", "3", "none"]]


async def test_a_question_is_bounded() -> None:
    store, expiries = Store(), Expiries.here()
    store.open.set()
    keys = [str(number) for number in range(AT_ONCE + 1)]
    assert await asyncio.gather(*(expiries.expiry(key, store.ask) for key in keys)) == list(range(AT_ONCE + 1))
    assert [len(question) for question in store.questions] == [AT_ONCE, 1]


async def test_a_failure_is_for_all_who_asked_and_not_for_the_next() -> None:
    store, expiries = Store(), Expiries.here()
    store.open.set()
    store.away = True
    failed = await asyncio.gather(*(expiries.expiry(key, store.ask) for key in "12"), return_exceptions=True)
    assert [type(error) for error in failed] == [ConnectionError, ConnectionError]
    store.away = False
    assert await expiries.expiry("1", store.ask) == 1


async def test_one_who_goes_takes_nobody_along() -> None:
    store, expiries = Store(), Expiries.here()
    gone, stays = (asyncio.create_task(expiries.expiry("7", store.ask)) for _ in range(2))
    await asyncio.sleep(0.01)
    gone.cancel()
    store.open.set()
    assert await stays == 7
    with pytest.raises(asyncio.CancelledError):
        await gone
