"""What a live channel keeps and where it lives, as one value. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Policy:
    """How the layer treats one live channel; made from the attributes of its LiveChannel class.

    history_size: publications kept (0 = none: no positions, no recovery).
    history_ttl: seconds a publication is kept.
    recovery: "stream" replays what was missed; "cache" gives only the newest publication.
    scope: "cluster", or "node" for a stream that stays inside each process.
    durability: "ack", or "replicated" to wait for a replica.
    coalesce: a slow viewer may be given only the newest publication.
    """

    history_size: int = 0
    history_ttl: float = 0
    presence: bool = False
    join_leave: bool = False
    recovery: Literal["stream", "cache"] = "stream"
    scope: Literal["cluster", "node"] = "cluster"
    durability: Literal["ack", "replicated"] = "ack"
    coalesce: bool = False

    @property
    def keeps_history(self) -> bool:
        return self.history_size > 0 and self.history_ttl > 0
