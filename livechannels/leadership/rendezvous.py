"""Who goes first: an order of nodes for every name, the same on every node without asking anybody. Pure.

Rendezvous hashing spreads names evenly, and when a node comes or goes only the names it wins or held move.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

STEP = 0.05
MOST_STEPS = 3


def weight(node: str, name: str) -> bytes:
    """The draw of a node for a name; the smallest goes first."""
    return blake2b(f"{node}\0{name}".encode(), digest_size=8).digest()


def order(nodes: Iterable[str], name: str) -> list[str]:
    """The nodes, best first."""
    return sorted(set(nodes), key=lambda node: (weight(node, name), node))


def rank(node: str, nodes: Iterable[str], name: str) -> int:
    """How many of `nodes` go before `node`; it need not be one of them."""
    own = (weight(node, name), node)
    return sum(1 for other in set(nodes) if other != node and (weight(other, name), other) < own)


def wait(rank: int) -> float:
    """Seconds a node of this rank holds back so that a better one comes first. Bounded: the better may be dead."""
    return min(rank, MOST_STEPS) * STEP
