"""The servers of one endpoint for blocking callers: found, connected to and asked before one deadline.

A socket's own time-out starts anew with each address and each answer; sentinels or cluster nodes that accept and
never answer would add them up. Here every step gets what is left of the whole call.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from ...exceptions import EngineUnavailable
from ..endpoints import Endpoint
from .connect import connection_arguments
from .replies import Address, slot_owners

Client = Any
"""A `redis.Redis`, most of whose methods have no types."""

STEP_WITHIN = 1.0
FIND_WITHIN = 0.5


class _Call(threading.local):
    until = math.inf


_call = _Call()


class deadline:
    """What this thread asks of Redis inside ends by `until` on `time.monotonic`; of two deadlines the earlier holds."""

    __slots__ = ("_before", "_until")

    def __init__(self, until: float) -> None:
        self._until = until

    def __enter__(self) -> None:
        self._before = _call.until
        _call.until = min(self._until, self._before)

    def __exit__(self, *_exc: object) -> None:
        _call.until = self._before


def time_left() -> float:
    """Seconds for the next step, never 0. Raises redis-py's TimeoutError when the deadline has passed."""
    left = min(STEP_WITHIN, _call.until - time.monotonic())
    if left <= 0:
        raise RedisTimeoutError("no time is left for connecting and asking")
    return left


class _Bounded:
    """A connection whose every step ends before the deadline of its thread."""

    _sock: Any

    def _connect(self) -> Any:
        connection = cast(Any, self)
        connection.socket_connect_timeout = connection.socket_timeout = time_left()
        return super()._connect()  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        left = time_left()
        if self._sock is not None and self._sock.gettimeout() != left:
            self._sock.settimeout(left)
        super().send_packed_command(command, check_health)  # type: ignore[misc]


class _Tcp(_Bounded, Connection):
    pass


class _Tls(_Bounded, SSLConnection):
    pass


class _Unix(_Bounded, UnixDomainSocketConnection):
    pass


def _client(kind: type[Any], arguments: dict[str, Any]) -> Client:
    pool = redis.ConnectionPool(connection_class=kind, **arguments | {"retry": Retry(NoBackoff(), 0)})
    return redis.Redis(connection_pool=pool)


class Servers:
    """One plain client for each server, none of which retries by itself. Thread-safe."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._clients: dict[Address | None, Client] = {}
        self._owners: list[Address | None] = []
        self._finding = threading.Lock()

    def of(self, key: str) -> Client:
        """The client of the master that holds a key. Raises RedisError or EngineUnavailable if it cannot be found."""
        owners = self._owners or self._find()
        return self.at(owners[key_slot(key.encode())] if len(owners) > 1 else owners[0])

    def masters(self) -> list[Client]:
        """The clients of all masters."""
        return [self.at(address) for address in dict.fromkeys(self._owners or self._find())]

    def at(self, address: Address | None) -> Client:
        client = self._clients.get(address)
        return client or self._clients.setdefault(address, self._connected_to(address))

    def forget(self) -> None:
        """Find the masters anew before the next request."""
        self._owners = []

    def reconnect(self) -> None:
        """Take new connections from now on: those that stand lead to a server that is no master any more.

        A call under way on another thread keeps its connection, and finds out for itself.
        """
        clients, self._clients = self._clients, {}
        self.forget()
        for client in clients.values():
            client.connection_pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        clients, self._clients = self._clients, {}
        self.forget()
        for client in clients.values():
            client.connection_pool.disconnect()  # a client made with a pool leaves it open

    def _connected_to(self, address: Address | None) -> Client:
        endpoint = self._endpoint
        arguments = connection_arguments(endpoint.connection)
        if endpoint.kind == "cluster":
            arguments.pop("db", None)
        if endpoint.path:
            return _client(_Unix, arguments | {"path": endpoint.path})
        host, port = address or endpoint.addresses[0]
        return _client(_Tls if endpoint.tls else _Tcp, arguments | {"host": host, "port": port})

    def _find(self) -> list[Address | None]:
        if self._endpoint.kind == "single":
            self._owners = [None]
            return self._owners
        if not self._finding.acquire(timeout=time_left()):
            raise RedisTimeoutError("no time is left for connecting: another thread still looks for the master")
        try:
            self._owners = self._owners or self._ask_around()
            return self._owners
        finally:
            self._finding.release()

    def _ask_around(self) -> list[Address | None]:
        """Ask sentinels, or nodes of the cluster, one after the other."""
        problems = []
        ask = self._ask_sentinel if self._endpoint.kind == "sentinel" else self._ask_node
        known = [address for address in self._clients if address and self._endpoint.kind == "cluster"]
        for address in dict.fromkeys([*self._endpoint.addresses, *known]):
            try:
                with deadline(time.monotonic() + FIND_WITHIN):
                    owners = ask(address)
            except (RedisError, OSError) as error:
                problems.append(f"{address[0]}:{address[1]}: {error}")
                continue
            if owners:
                return owners
            problems.append(f"{address[0]}:{address[1]} does not know")
        raise EngineUnavailable(f"{self._endpoint}: nobody could name the master: {'; '.join(problems)}")

    def _ask_sentinel(self, address: Address) -> list[Address | None]:
        arguments = connection_arguments(self._endpoint.sentinel)
        kind = _Tls if arguments.pop("ssl", False) else _Tcp
        with _client(kind, arguments | {"host": address[0], "port": address[1]}) as sentinel:
            found = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._endpoint.master)
        return [(found[0].decode(), int(found[1]))] if found else []

    def _ask_node(self, address: Address) -> list[Address | None]:
        owners = slot_owners(self.at(address).execute_command("CLUSTER", "SLOTS"), address[0])
        return list(owners or ())
