from __future__ import annotations

from collections import Counter

import pytest

from livechannels.leadership import rendezvous

NODES = ["a-1-x", "b-2-y", "c-3-z"]
NAMES = [f"source/host/{number}" for number in range(3000)]


def test_every_node_sees_the_same_order():
    for name in NAMES[:50]:
        ranks = {node: rendezvous.rank(node, NODES, name) for node in NODES}
        assert sorted(ranks, key=ranks.__getitem__) == rendezvous.order(reversed(NODES), name)


def test_a_node_that_is_not_listed_has_the_rank_it_would_have():
    for name in NAMES[:50]:
        assert rendezvous.rank("a-1-x", NODES, name) == rendezvous.rank("a-1-x", NODES[1:], name)


def test_names_are_spread_evenly():
    led = Counter(rendezvous.order(NODES, name)[0] for name in NAMES)
    assert all(850 <= led[node] <= 1150 for node in NODES), led


def test_only_the_names_of_a_lost_node_move():
    for name in NAMES:
        before = rendezvous.order(NODES, name)
        assert rendezvous.order(NODES[1:], name) == [node for node in before if node != NODES[0]]


def test_holding_back_is_bounded():
    assert [rendezvous.wait(rank) for rank in (0, 1, 2)] == [0, 0.05, 0.1]
    assert rendezvous.wait(100) == rendezvous.wait(3) == pytest.approx(0.15)
