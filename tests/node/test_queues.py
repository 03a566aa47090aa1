"""Readers of plain channels over the memory engine, with a store that can be away or lose its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from livechannels.engines.base import Command, QueuePop, QueuePush, QueueReturn
from livechannels.engines.memory import MemoryEngine
from livechannels.exceptions import EngineUnavailable
from livechannels.messages import topics
from livechannels.node import queues
from livechannels.node.feeds import Feeds
from livechannels.node.queues import QueueReader

QUEUE = topics.queue("jobs")


class Path:
    """A memory port that answers while `open`, refuses what `refusing` names, and keeps all that it was asked."""

    def __init__(self, engine: MemoryEngine, feeds: Feeds) -> None:
        self._port = engine.port(feeds, "node")
        self.open = asyncio.Event()
        self.open.set()
        self.refusing: Callable[[Command[Any]], bool] = lambda command: False
        self.asked: list[Command[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def run(self, command: Command[Any]) -> Any:
        self.asked.append(command)
        await self.open.wait()
        if self.refusing(command):
            raise EngineUnavailable("away")
        return await self._port.run(command)


class Worker:
    """One node that reads the queue."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.feeds = Feeds(self.spawn)
        self.feeds.port = self.path = Path(engine, self.feeds)
        self.reader = QueueReader("jobs", self.feeds, self.spawn, 60)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def get(self) -> bytes:
        return await asyncio.wait_for(self.reader.get(), 10)

    async def give_up(self) -> None:
        """Begin to read, and cancel that once the store was asked and before it answers."""
        begun = len(self.path.asked)
        self.path.open.clear()
        reading = asyncio.ensure_future(self.reader.get())
        await until(lambda: len(self.path.asked) > begun)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        self.path.open.set()


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
async def make(engine: MemoryEngine) -> AsyncIterator[Callable[[], Worker]]:
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker(engine))
        return made[-1]

    yield make
    for worker in made:
        tasks = list(worker.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await worker.path.close()


@pytest.fixture
async def worker(make: Callable[[], Worker]) -> Worker:
    return make()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL", "GRACE", "ASK_AGAIN_AFTER"):
        monkeypatch.setattr(queues, name, 0.05)


def push(engine: MemoryEngine, *bodies: bytes) -> None:
    for body in bodies:
        assert engine.run_sync(QueuePush(QUEUE, body, 1000, 60))


def left(engine: MemoryEngine) -> list[bytes]:
    return engine.run_sync(QueuePop(QUEUE, 1000))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class TestReading:
    async def test_in_order(self, engine: MemoryEngine, worker: Worker) -> None:
        push(engine, b"1", b"2", b"3")
        assert [await worker.get() for _ in range(3)] == [b"1", b"2", b"3"]

    async def test_a_waiting_reader_is_woken(self, engine: MemoryEngine, worker: Worker) -> None:
        """Well before the next poll, which is seconds away."""
        reading = asyncio.ensure_future(worker.reader.get())
        await until(lambda: worker.path.asked)
        push(engine, b"1")
        assert await asyncio.wait_for(reading, queues.POLL / 2) == b"1"

    async def test_only_what_readers_wait_for_is_taken(self, engine: MemoryEngine, worker: Worker) -> None:
        push(engine, b"1", b"2", b"3")
        assert await worker.get() == b"1"
        assert left(engine) == [b"2", b"3"]

    async def test_each_message_to_one_of_many(self, engine: MemoryEngine, make: Callable[[], Worker]) -> None:
        sent = [b"%d" % number for number in range(300)]
        found: list[bytes] = []

        async def work(worker: Worker) -> None:
            while True:
                found.append(await worker.reader.get())

        workers = [asyncio.ensure_future(work(worker)) for worker in (make(), make(), make()) for _ in range(4)]
        for body in sent:
            push(engine, body)
            await asyncio.sleep(0)
        await until(lambda: len(found) >= len(sent))
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert sorted(found) == sorted(sent)

    async def test_more_readers_than_any_capacity(self, engine: MemoryEngine, worker: Worker) -> None:
        readers = [asyncio.ensure_future(worker.get()) for _ in range(500)]
        push(engine, *(b"%d" % number for number in range(500)))
        assert len(set(await asyncio.gather(*readers))) == 500


class TestGivingUp:
    async def test_the_next_reader_here_gets_what_was_taken(self, engine: MemoryEngine, worker: Worker) -> None:
        push(engine, b"1", b"2")
        await worker.give_up()
        assert [await worker.get(), await worker.get()] == [b"1", b"2"]

    @pytest.mark.usefixtures("impatient")
    async def test_nobody_comes_and_it_goes_back_to_the_front(self, engine: MemoryEngine, worker: Worker) -> None:
        push(engine, b"1", b"2")
        await worker.give_up()
        await until(lambda: worker.reader.idle)
        assert [type(command) for command in worker.path.asked] == [QueuePop, QueueReturn]
        assert left(engine) == [b"1", b"2"]

    @pytest.mark.usefixtures("impatient")
    async def test_a_reader_may_come_back_after_that(self, engine: MemoryEngine, worker: Worker) -> None:
        await worker.give_up()
        await until(lambda: worker.reader.idle)
        push(engine, b"1")
        assert await worker.get() == b"1"

    async def test_closing_puts_back_what_was_not_read(self, engine: MemoryEngine, worker: Worker) -> None:
        push(engine, b"1", b"2")
        await worker.give_up()
        await until(lambda: len(worker.reader.box))
        await worker.reader.close()
        assert left(engine) == [b"1", b"2"]


@pytest.mark.usefixtures("impatient")
class TestWithoutTheStore:
    async def test_reading_waits_until_it_is_back(self, engine: MemoryEngine, worker: Worker) -> None:
        worker.path.refusing = lambda command: True
        push(engine, b"1")
        reading = asyncio.ensure_future(worker.get())
        await until(lambda: len(worker.path.asked) > 3)
        assert not reading.done()
        worker.path.refusing = lambda command: False
        assert await reading == b"1"

    async def test_an_unanswered_request_is_made_again_before_any_other(
        self, engine: MemoryEngine, worker: Worker
    ) -> None:
        """Also when its reader is gone: the store may have handed out something."""
        worker.path.refusing = lambda command: True
        await worker.give_up()
        await until(lambda: len(worker.path.asked) > 3)
        worker.path.refusing = lambda command: False
        push(engine, b"1")
        await until(lambda: worker.reader.idle)
        pops = [command for command in worker.path.asked if isinstance(command, QueuePop)]
        assert len(pops) > 3
        assert len({pop.turn for pop in pops}) == 1
        assert left(engine) == [b"1"]

    async def test_what_goes_back_is_not_read_here_as_well(self, engine: MemoryEngine, worker: Worker) -> None:
        """An unanswered return may have been carried out: another worker may have the message by now."""
        push(engine, b"1")
        worker.path.refusing = lambda command: isinstance(command, QueueReturn)
        await worker.give_up()
        await until(lambda: len(worker.path.asked) > 3)
        reading = asyncio.ensure_future(worker.reader.get())
        await asyncio.sleep(0.2)
        assert not reading.done()
        returns = [command for command in worker.path.asked if isinstance(command, QueueReturn)]
        assert len({command.turn for command in returns}) == 1
        worker.path.refusing = lambda command: False
        assert await asyncio.wait_for(reading, 10) == b"1"

    async def test_every_request_has_a_number_of_its_own(self, engine: MemoryEngine, worker: Worker) -> None:
        push(engine, b"1", b"2", b"3")
        for _ in range(3):
            await worker.get()
        turns = [command.turn for command in worker.path.asked if isinstance(command, QueuePop)]
        assert [turn.number for turn in turns] == list(range(1, len(turns) + 1))
        assert len({turn.reader for turn in turns}) == 1

    async def test_closing_says_that_messages_may_be_lost(
        self, engine: MemoryEngine, worker: Worker, caplog: pytest.LogCaptureFixture
    ) -> None:
        push(engine, b"1")
        await worker.give_up()
        await until(lambda: len(worker.reader.box))
        worker.path.refusing = lambda command: True
        await asyncio.wait_for(worker.reader.close(), 10)
        assert "jobs: messages taken from the queue may be lost: away" in caplog.text
