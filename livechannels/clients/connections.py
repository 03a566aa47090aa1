"""Everyone connected to this node, by user and by session, so that the cluster can end what it must at once."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from .. import metrics
from ..messages.codes import FORCE_NO_RECONNECT, SHUTDOWN, Disconnect
from ..node.node import Node
from ..node.shutdown import before_exit
from .writers import Writers

logger = logging.getLogger(__name__)

CLOSING_AT_ONCE = 128
REASON_BYTES = 123

_by_node: WeakKeyDictionary[Node, Connections] = WeakKeyDictionary()


class Connection(Protocol):
    """A browser's connection of any transport. The calls come on its loop and must not block."""

    @property
    def user_id(self) -> str: ...

    @property
    def session_hash(self) -> str | None: ...

    def close(self, disconnect: Disconnect) -> None: ...

    def revoke(self, channel: str) -> None:
        """End the subscription to a channel, if there is one."""

    def recheck(self) -> None:
        """Look at the sign-in and at all rights again, soon."""

    async def closed(self) -> None:
        """Wait until everything this connection held is let go."""


class Connections:
    """The connections of one node. It hears the control messages "disconnect", "unsubscribe" and "recheck"."""

    def __init__(self, node: Node) -> None:
        self._all: set[Connection] = set()
        self._by_user: defaultdict[str, set[Connection]] = defaultdict(set)
        self.writers = Writers()
        self.closing = False
        node.on_control("disconnect", self._disconnect)
        node.on_control("unsubscribe", self._unsubscribe)
        node.on_control("recheck", self._recheck)
        node.on_close(self.close_all)
        called_off = before_exit(self.close_all, lambda: None)

        async def call_off() -> None:
            called_off()

        node.on_close(call_off)

    @classmethod
    def of(cls, node: Node) -> Connections:
        """The connections of this node, made at the first call."""
        found = _by_node.get(node)
        if found is None:
            found = _by_node[node] = cls(node)
        return found

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def over(self, limits: Mapping[str, int], coming: int = 0) -> bool:
        """Whether there are more than `connections` allows, with those that are `coming`; 0 is no limit."""
        return 0 < limits["connections"] < len(self._all) + coming

    def over_by(self, user_id: str, limits: Mapping[str, int], coming: int = 0) -> bool:
        """Whether a signed-in user has more than `connections_per_user` allows, with those that are `coming`."""
        return bool(user_id) and 0 < limits["connections_per_user"] < len(self._by_user.get(user_id, ())) + coming

    def add(self, connection: Connection) -> None:
        self._all.add(connection)
        self._by_user[connection.user_id].add(connection)

    def discard(self, connection: Connection) -> None:
        self._all.discard(connection)
        same_user = self._by_user.get(connection.user_id)
        if same_user is not None:
            same_user.discard(connection)
            if not same_user:
                del self._by_user[connection.user_id]

    async def close_all(self) -> None:
        """Tell everyone to come back elsewhere, and wait until all have heard. Nobody is let in any more."""
        self.closing = True
        remaining = list(self._all)
        for start in range(0, len(remaining), CLOSING_AT_ONCE):
            for connection in remaining[start : start + CLOSING_AT_ONCE]:
                connection.close(SHUTDOWN)
            await asyncio.sleep(0)
        await asyncio.gather(*(connection.closed() for connection in remaining), return_exceptions=True)

    def _of_user(self, payload: dict[str, Any]) -> list[Connection]:
        return list(self._by_user.get(str(payload.get("user", "")), ()))

    def _disconnect(self, payload: dict[str, Any]) -> None:
        session = payload.get("session")
        concerned = (
            [connection for connection in self._all if connection.session_hash == session]
            if session
            else self._of_user(payload)
        )
        disconnect = Disconnect(
            int(payload.get("code") or FORCE_NO_RECONNECT.code),
            _short(str(payload.get("reason") or FORCE_NO_RECONNECT.reason)),
        )
        for connection in concerned:
            connection.close(disconnect)

    def _unsubscribe(self, payload: dict[str, Any]) -> None:
        for connection in self._of_user(payload):
            connection.revoke(str(payload.get("channel", "")))

    def _recheck(self, payload: dict[str, Any]) -> None:
        for connection in self._of_user(payload) if "user" in payload else list(self._all):
            connection.recheck()


def _short(reason: str) -> str:
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


def _count() -> list[metrics.Sample]:
    return [metrics.Sample((), sum(len(connections) for connections in list(_by_node.values())))]


metrics.gauge("livechannels_connections", "Browsers connected to this process.").collect_from(_count)
