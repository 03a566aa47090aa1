"""Every key and pub/sub name in Redis, in one place, and the rights a Redis user needs for them. Pure.

Keys begin with `<prefix>:lc1:`; the part in braces is the topic, so that all keys of one topic live in one
cluster slot. A topic never contains braces: names are checked before they come here.
"""

from __future__ import annotations

import re

from ..endpoints import Endpoint
from . import scripts

_SENT = frozenset(
    {"auth", "client|setname", "del", "eval", "evalsha", "info", "ping", "publish", "scan", "select", "subscribe"}
    | {"time", "unsubscribe", "wait"}
)
_SENT_TO_CLUSTERS = frozenset({"asking", "cluster|slots", "command", "spublish", "ssubscribe", "sunsubscribe"})
_CALL = re.compile(rb"redis\.p?call\(\s*['\"]([A-Za-z]+)['\"]")


class Keys:
    """The names of one prefix on one database (pub/sub ignores the database, so its names carry the number)."""

    def __init__(self, prefix: str, db: int) -> None:
        self.root = f"{prefix}:lc1:"
        self.names = f"{prefix}:lc1:{db}:"

    def record(self, topic: str) -> str:
        """Hash: a topic's epoch, offset, replication id and earlier epochs."""
        return f"{self.root}{{{topic}}}:m"

    def stream(self, topic: str) -> str:
        """Stream: a topic's stored messages."""
        return f"{self.root}{{{topic}}}:s"

    def plain(self, topic: str) -> str:
        """Sorted set: plain channels that stand in a group."""
        return f"{self.root}{{{topic}}}:p"

    def queue(self, topic: str) -> str:
        """List: what waits in a plain channel."""
        return f"{self.root}{{{topic}}}:q"

    def handed(self, topic: str, reader: str) -> str:
        """String: the number of a reader's last request to a queue, and the items it was answered with."""
        return f"{self.root}{{{topic}}}:h:{reader}"

    def lease(self, topic: str) -> str:
        """Hash: who leads."""
        return f"{self.root}{{{topic}}}:l"

    def once(self, topic: str, key: str) -> str:
        """String: that something was done once: the position an idempotency key was answered with, or a push."""
        return f"{self.root}{{{topic}}}:k:{key}"

    def values(self, topic: str) -> str:
        """Hash: a roster's values by member."""
        return f"{self.root}{{{topic}}}:v"

    def stays(self, topic: str) -> str:
        """Sorted set: a roster's members by the end of their stay."""
        return f"{self.root}{{{topic}}}:z"

    def name(self, topic: str) -> str:
        """Pub/sub name of a topic."""
        return f"{self.names}{{{topic}}}"

    def topic(self, name: str) -> str:
        """The topic of a pub/sub name."""
        return name[len(self.names) + 1 : -1]

    def flushed(self) -> list[str]:
        """Patterns of the keys that `flush` deletes: groups, inboxes and queues."""
        return [f"{self.root}{{{kind}/*" for kind in "gnq"]


def commands(endpoint: Endpoint) -> list[str]:
    """The commands sent to this endpoint, and those our scripts call there."""
    sources = (script.source for script in vars(scripts).values() if isinstance(script, scripts.Script))
    called = {name.decode().lower() for source in sources for name in _CALL.findall(source)}
    return sorted(_SENT | called | (_SENT_TO_CLUSTERS if endpoint.kind == "cluster" else frozenset()))


def rules(endpoint: Endpoint, prefix: str) -> list[str]:
    """Arguments of ACL SETUSER that allow what a layer with this prefix does on this endpoint, and nothing else."""
    keys = Keys(prefix, endpoint.db)
    allowed = [f"+{name}" for name in commands(endpoint)]
    return ["reset", "on", "resetchannels", f"~{keys.root}*", f"&{keys.names}*", *allowed]
