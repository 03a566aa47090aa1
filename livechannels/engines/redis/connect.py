"""Connections to an endpoint through redis-py, for a wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from ...exceptions import EngineUnavailable
from ..endpoints import Endpoint
from .replies import Address
from .wire import CLOSE_WITHIN

logger = logging.getLogger(__name__)

CONNECT_WITHIN = 1.0
NOT_OURS = ("max_connections", "retry", "retry_on_timeout", "retry_on_error", "health_check_interval", "protocol",
            "decode_responses", "encoding", "socket_timeout", "socket_connect_timeout", "single_connection_client",
            "connection_class", "path")  # fmt: skip


def connection_arguments(connection: Mapping[str, Any]) -> dict[str, Any]:
    """redis-py's arguments for one connection: what the settings say, and what is ours to say."""
    ours = {name: value for name, value in connection.items() if name not in NOT_OURS}
    return ours | {
        "socket_connect_timeout": CONNECT_WITHIN,
        "socket_timeout": CONNECT_WITHIN,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
        "client_name": ours.get("client_name", "livechannels"),
    }


def _make(endpoint: Endpoint, address: Address | None) -> AbstractConnection:
    kwargs = connection_arguments(endpoint.connection)
    if endpoint.path:
        return UnixDomainSocketConnection(path=endpoint.path, **kwargs)
    host, port = address or endpoint.addresses[0]
    kind = SSLConnection if endpoint.tls else Connection
    return kind(host=host, port=port, **kwargs)


async def open_connection(endpoint: Endpoint, address: Address | None = None) -> AbstractConnection:
    """A connected, authenticated connection. Raises EngineUnavailable within a second, saying what to do."""
    connection = _make(endpoint, address)
    where = str(endpoint) if address is None else f"{endpoint} ({address[0]}:{address[1]})"
    try:
        await _connect(connection)
    except AuthenticationError as error:
        raise EngineUnavailable(f"{where} refused the user or password: check the URL ({error})") from None
    except ResponseError as error:
        raise EngineUnavailable(f"{where} refused the connection: {remedy(str(error))}") from None
    except (RedisError, OSError, TimeoutError) as error:
        raise EngineUnavailable(f"{where} cannot be reached: {remedy(str(error) or 'no answer')}") from None
    return connection


async def _connect(connection: AbstractConnection) -> None:
    async with asyncio.timeout(CONNECT_WITHIN * 1.5):
        await cast(Any, connection).connect()
        try:
            mind_cancellation()
        except asyncio.CancelledError:
            await close_connection(connection)
            raise


def mind_cancellation() -> None:
    """Be cancelled if that was asked for: before Python 3.12 the `wait_for` inside redis-py's calls may swallow it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def remedy(text: str) -> str:
    """What to do about an error text of Redis, where we know it."""
    if "NOAUTH" in text or "Authentication required" in text:
        return "it wants a password: put it into the URL, redis://:password@host"
    if "DENIED" in text or "protected mode" in text:
        return "it runs in protected mode: set a password or bind address there"
    if "invalid DB index" in text or "DB index is out of range" in text:
        return "it has no such database number"
    return text


async def close_connection(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_WITHIN):
            await connection.disconnect(nowait=True)
    except (RedisError, OSError, TimeoutError) as error:
        logger.debug("Closing a connection: %s", error)


async def find_master(endpoint: Endpoint) -> Address:
    """Ask the sentinels for the master's address, one after the other. Raises EngineUnavailable."""
    problems = []
    for host, port in endpoint.addresses:
        try:
            connection = await _open_sentinel(endpoint, host, port)
        except (RedisError, OSError, TimeoutError) as error:
            problems.append(f"{host}:{port}: {error or 'no answer'}")
            continue
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", endpoint.master)
                found = await connection.read_response()
                mind_cancellation()
        except (RedisError, OSError, TimeoutError) as error:
            problems.append(f"{host}:{port}: {error or 'no answer'}")
            continue
        finally:
            await close_connection(connection)
        if found:
            return found[0].decode(), int(found[1])
        problems.append(f"{host}:{port} knows no master named {endpoint.master!r}")
    raise EngineUnavailable(f"{endpoint}: no sentinel could name the master: {'; '.join(problems)}")


async def _open_sentinel(endpoint: Endpoint, host: str, port: int) -> AbstractConnection:
    kwargs = connection_arguments(endpoint.sentinel)
    connection = (SSLConnection if endpoint.sentinel.get("ssl") else Connection)(host=host, port=port, **{
        name: value for name, value in kwargs.items() if name != "ssl"
    })  # fmt: skip
    await _connect(connection)
    return connection
