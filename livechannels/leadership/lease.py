"""A lease as its holder sees it: how long it may be trusted, counted on this machine's monotonic clock. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..engines.base import Fence, Grant

SAFE = 0.85
"""Part of the time to live for which a lease is trusted: the source is to have *stopped* before 0.9 of it."""
RENEWALS = 3


@dataclass(slots=True, eq=False)
class Lease:
    """The right to lead `name`. Nothing here makes it true: the store's fence check does.

    `deadline`: the monotonic time until which this holder trusts it: SAFE times the time to live after the
    last successful request *was sent*, so that it has stopped before the store lets anyone else in.
    `token` rises with every new leader. `since` is seconds since the Unix epoch on the store's clock.
    """

    name: str
    topic: str
    session: str
    token: int
    ttl: float
    since: float
    deadline: float
    ended: str = ""
    heir: str = ""

    @classmethod
    def granted(cls, name: str, topic: str, session: str, grant: Grant, ttl: float, sent: float) -> Lease:
        """From the store's answer to a request sent at `sent`. ValueError if it was given to someone else."""
        if grant.token is None:
            raise ValueError(f"{name} is led by {grant.holder}")
        return cls(name, topic, session, grant.token, ttl, grant.since, deadline(sent, min(grant.remaining, ttl), ttl))

    @property
    def fence(self) -> Fence:
        """The proof to publish with."""
        return Fence(self.session, self.token)

    def renewed(self, sent: float) -> None:
        """A renewal sent at `sent` succeeded. Answers may come out of order; the deadline only moves forward."""
        self.deadline = max(self.deadline, deadline(sent, self.ttl, self.ttl))

    def trusted(self, now: float) -> bool:
        return not self.ended and now < self.deadline


def deadline(sent: float, remaining: float, ttl: float) -> float:
    """Until when to trust a lease whose store said, after `sent`, that it lasts `remaining` seconds more."""
    return sent + remaining - (1 - SAFE) * ttl


def renewal_period(ttl: float) -> float:
    """Seconds between renewals."""
    return ttl / RENEWALS
