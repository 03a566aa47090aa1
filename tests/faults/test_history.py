"""The judge finds what it is there to find."""

from __future__ import annotations

from itertools import count

from tests.faults.history import Surviving, judge

CHANNEL = "keyed/1"


def run(*events, kept=5, **words):
    clock = count()
    stamped = [{"t": next(clock), "node": "n1", **event} for event in events]
    surviving = {CHANNEL: Surviving("E1", kept, {offset: f"p-{offset}" for offset in range(1, kept + 1)})}
    return judge(stamped, surviving, **words).violations


def subscribed(offset, since=None, recovered=False, epoch="E1"):
    return {
        "event": "subscribed", "viewer": "v", "channel": CHANNEL, "since": since, "recovered": recovered,
        "offset": offset, "epoch": epoch,
    }  # fmt: skip


def seen(offset, id=None, epoch="E1"):
    return {
        "event": "seen", "viewer": "v", "channel": CHANNEL, "offset": offset, "epoch": epoch, "id": id or f"p-{offset}",
    }  # fmt: skip


def activated(offset):
    return {"event": "activated", "viewer": "v", "channel": CHANNEL, "offset": offset}


LEFT = {"event": "left", "viewer": "v", "channel": CHANNEL}


def test_a_whole_history_is_fine():
    assert run(subscribed(0), activated(0), *map(seen, range(1, 6))) == []


def test_a_told_loss_is_fine():
    told = [subscribed(3, since=["E0", 9], recovered=False), activated(3), seen(4), seen(5)]
    assert run(subscribed(0), activated(0), seen(1), LEFT, *told) == []


def test_a_hole_a_repeat_and_a_swap():
    assert "1 silently lost" in run(subscribed(0), seen(1), seen(3), seen(4), seen(5))[0]
    assert "again" in run(subscribed(0), seen(1), seen(1), *map(seen, range(2, 6)))[0]
    assert len(run(subscribed(0), seen(2), seen(1), seen(3), seen(4), seen(5))) >= 2


def test_a_missing_end():
    assert "ended at E1:4" in run(subscribed(0), *map(seen, range(1, 5)))[0]


def test_recovered_but_not_all_of_it():
    resumed = [subscribed(5, since=["E1", 1], recovered=True), seen(2), activated(5)]
    assert "but was given up to 2" in run(subscribed(0), seen(1), LEFT, *resumed)[0]


def test_a_rewind_nobody_told_of():
    old = [seen(offset, f"old-{offset}") for offset in range(1, 4)]
    resumed = [subscribed(5, since=["E1", 3], recovered=True), seen(4), seen(5), activated(5)]
    assert "taken back" in run(subscribed(0), *old, LEFT, *resumed)[0]


def test_a_new_epoch_without_subscribing_anew():
    assert "while at E0" in run(subscribed(0, epoch="E0"), *map(seen, range(1, 6)))[0]


def test_one_key_stored_twice():
    found = judge([], {CHANNEL: Surviving("E1", 2, {1: "p-1", 2: "p-1"})})
    assert "stored 2 times" in found.violations[0]


def test_acknowledged_and_gone():
    event = {"event": "published", "channel": CHANNEL, "id": "p-9", "epoch": "E1", "offset": 9}
    assert run(event) == []
    assert "is gone" in run(event, lossless=True)[0]


def group(*heard, sent=(1, 2, 3), gone=None):
    clock = count(step=10)
    events = [{"t": next(clock), "node": "n1", "event": "joined", "group": "g"}]
    events += [{"t": t, "began": t, "node": "n2", "event": "group-sent", "group": "g", "id": f"s-{n}"}
               for n in sent for t in [next(clock)]]  # fmt: skip
    events += [
        {"t": next(clock), "node": "n1", "event": "gap", "group": "g"} if n is None
        else {"t": next(clock), "node": "n1", "event": "heard", "group": "g", "id": f"s-{n}"}
        for n in heard
    ]  # fmt: skip
    events += [{"t": gone, "node": "nemesis", "event": "server-gone"}] if gone is not None else []
    return judge(events, {}).violations


def test_group_members():
    assert group(1, 2, 3) == []
    assert group(1, None, 3) == []
    assert group(1, 2, None) == []
    assert group(1, 9, 2, 3) == [], "a message that was not acknowledged may arrive or not"
    assert "silently lost" in group(1, 3)[0]
    assert "silently lost" in group(1, 2)[0]
    assert group(2, 1, 3)
    assert "2 times" in group(1, 1, 2, 3)[0]


def test_a_message_acknowledged_while_the_server_went_away_may_be_gone():
    assert group(1, 3, gone=20) == []
    assert "silently lost" in group(1, 3, gone=30)[0]


def unplaced(name):
    return {"event": "unplaced", "viewer": "v", "channel": CHANNEL, "id": name}


def test_served_without_a_position_and_not_again_is_fine():
    assert run(subscribed(0), seen(1), unplaced("p-2"), seen(3), seen(4), unplaced("p-5")) == []
    assert "silently lost" in run(subscribed(0), seen(1), unplaced("p-3"), seen(3), seen(4), seen(5))[0]


def test_served_without_a_position_and_again():
    assert "and again at 2" in run(subscribed(0), seen(1), unplaced("p-2"), *map(seen, range(2, 6)))[0]


def test_served_without_a_position_in_a_store_that_was_erased_since():
    lived = [subscribed(0, epoch="E0"), seen(1, "q-1", epoch="E0"), unplaced("q-2"), seen(3, "q-3", epoch="E0")]
    after = [{"event": "insufficient", "viewer": "v", "channel": CHANNEL}, subscribed(5, since=["E0", 3])]
    placed = {"event": "published", "channel": CHANNEL, "id": "q-2", "epoch": "E0", "offset": 2}
    assert run(*lived, placed, *after) == []
    assert "silently lost" in run(*lived, *after)[0]
