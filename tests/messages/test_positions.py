from __future__ import annotations

import pytest

from livechannels.messages.positions import START, Beginning, Entry, Position, Slice, continues, diverged, recover

EPOCHS = (Beginning("a", 0), Beginning("b", 10), Beginning("c", 15))


def entries(*offsets: int) -> list[Entry]:
    return [Entry(offset, 0, b"") for offset in offsets]


@pytest.mark.parametrize(
    ("since", "goes_on"),
    [
        (START, True),
        (Position("", 20), True),
        (Position("", 21), False),
        (Position("c", 20), True),
        (Position("c", 21), False),
        (Position("b", 15), True),
        (Position("b", 16), False),
        (Position("a", 10), True),
        (Position("a", 11), False),
        (Position("x", 1), False),
    ],
)
def test_a_position_goes_on_while_nothing_it_saw_was_taken_back(since: Position, goes_on: bool) -> None:
    assert continues(since, Position("c", 20), EPOCHS) is goes_on


def test_nothing_goes_on_in_an_epoch_that_is_not_on_record() -> None:
    assert not continues(Position("a", 1), Position("b", 5), ())


@pytest.mark.parametrize(
    ("found", "recovered", "reason"),
    [
        (entries(3, 4, 5), True, ""),
        (entries(4, 5), False, "trimmed"),
        (entries(3, 5), False, "trimmed"),
        (entries(3, 4), False, "trimmed"),
        (entries(), False, "trimmed"),
        (entries(1, 2, 3, 4, 5), True, ""),
    ],
)
def test_recovery_is_whole_or_not_at_all(found: list[Entry], recovered: bool, reason: str) -> None:
    outcome = recover(Position("a", 2), Slice(Position("a", 5), EPOCHS[:1], found))
    assert (outcome.recovered, outcome.reason) == (recovered, reason)
    assert [entry.offset for entry in outcome.entries] == ([3, 4, 5] if recovered else [])


def test_a_reader_at_the_top_has_missed_nothing() -> None:
    assert recover(Position("a", 5), Slice(Position("a", 5), EPOCHS[:1], [])).recovered


def test_an_epoch_taken_back_is_a_restart() -> None:
    assert recover(Position("a", 30), Slice(Position("c", 20), EPOCHS, entries())).reason == "restart"


@pytest.mark.parametrize(
    ("since", "epochs", "after"),
    [
        (Position("a", 30), EPOCHS, 10),
        (Position("b", 30), EPOCHS, 15),
        (Position("gone", 30), EPOCHS, 15),
        (Position("gone", 30), EPOCHS[:1], 0),
        (Position("gone", 30), EPOCHS[1:], 15),
    ],
)
def test_a_reader_goes_on_where_its_epoch_parted(since: Position, epochs: tuple[Beginning, ...], after: int) -> None:
    assert diverged(since, epochs) == after
