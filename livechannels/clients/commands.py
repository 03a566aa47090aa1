"""What each command of a client does. One function per command, each answers the client itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from inspect import isawaitable
from typing import Any, cast

import msgspec
from django.core.exceptions import PermissionDenied, ValidationError

from .. import registry, rpc
from ..channels import Action, LiveChannel
from ..exceptions import InvalidChannelName, LiveChannelsError, ScopeError, UnknownChannel
from ..messages.codes import (
    ALREADY_SUBSCRIBED,
    BAD_FRAME,
    BAD_REQUEST,
    CHANNEL_LIMIT,
    CONNECTION_LIMIT,
    DISCONNECT_NOT_AVAILABLE,
    INTERNAL,
    INVALID_TOKEN,
    LIMIT_EXCEEDED,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    RATE_EXCEEDED,
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    UNKNOWN_CHANNEL,
    UNRECOVERABLE_POSITION,
    CommandFailed,
    Disconnected,
)
from ..messages.positions import Position
from ..node.hub import Subscribed
from .centrifuge import (
    ChannelRequest,
    Command,
    ConnectRequest,
    ConnectResult,
    Empty,
    HistoryRequest,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    PublishRequest,
    RefreshRequest,
    RefreshResult,
    Result,
    RPCRequest,
    RPCResult,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    decode_data,
    encode_error,
    encode_reply,
    publication_result,
)
from .session import ClientSession
from .subscriptions import Membership

logger = logging.getLogger(__name__)

VERSION = f"livechannels {version('livechannels')}"
EMPTY = Empty()


async def carry_out(session: ClientSession, command: Command) -> None:
    """Carry out one command and answer it. Raises Disconnected if the connection shall end."""
    method = command.method
    if session.connected == (method == "connect"):
        raise Disconnected(BAD_FRAME)
    try:
        _take_token(session, command)
        await _HANDLERS[method](session, command.id, getattr(command, method))
    except CommandFailed as failure:
        session.outbox.put(encode_error(command.id, failure.error))
    except UnknownChannel:
        session.outbox.put(encode_error(command.id, UNKNOWN_CHANNEL))
    except (InvalidChannelName, ValidationError):
        session.outbox.put(encode_error(command.id, BAD_REQUEST))
    except PermissionDenied:
        session.outbox.put(encode_error(command.id, PERMISSION_DENIED))
    except ScopeError:
        session.outbox.put(encode_error(command.id, NOT_AVAILABLE))
    except LiveChannelsError as error:
        logger.warning("%s was answered with a temporary error: %s", method, error)
        session.outbox.put(encode_error(command.id, INTERNAL))
    except Disconnected:
        raise
    except Exception:
        logger.exception("%s failed", method)
        session.outbox.put(encode_error(command.id, INTERNAL))


def _take_token(session: ClientSession, command: Command) -> None:
    """Keep to `commands_per_second`, with a second's worth of commands saved up at most."""
    limit = session.limits["commands_per_second"]
    if not limit or command.connect is not None:
        return
    now = time.monotonic()
    tokens, since = session.rate
    tokens = min(float(limit), tokens + (now - since) * limit)
    session.rate = (max(tokens - 1, 0), now)
    if tokens < 1:
        if command.id:
            raise CommandFailed(TOO_MANY_REQUESTS)
        raise Disconnected(RATE_EXCEEDED)


def _reply(session: ClientSession, id: int, method: str, result: Result) -> None:
    session.outbox.put(encode_reply(id, method, result))


# --- Connecting ---


async def _connect(session: ClientSession, id: int, request: ConnectRequest) -> None:
    if request.token:
        raise Disconnected(INVALID_TOKEN)
    if not session.connection_allowed():
        raise Disconnected(CONNECTION_LIMIT)
    try:
        await session.identity.load_expiry()
        session.info.conn_info = session.host.conn_info(session.identity.user)
        joined = await _server_side(session, request)
    except Disconnected:
        raise
    except Exception:
        # An error reply would leave the subscriptions that came in the same frame without a connection.
        logger.exception("A client could not be connected")
        raise Disconnected(SERVER_ERROR) from None
    result = ConnectResult(
        client=session.id,
        version=VERSION,
        ping=session.limits["ping_interval"],
        pong=True,
        session=session.id,
        node=session.node.id,
        time=int(time.time() * 1000),
        subs={membership.channel: result for membership, result in joined},
    )
    _reply(session, id, "connect", result)
    session.connect()
    for membership, _ in joined:
        await session.memberships.go_live(membership)


async def _server_side(session: ClientSession, request: ConnectRequest) -> list[tuple[Membership, SubscribeResult]]:
    """Subscribe the client to what the server chose for it, from where the client says it stands."""
    wanted = session.host.subscriptions(session.identity.user)
    channels = list(dict.fromkeys(await wanted if isawaitable(wanted) else wanted))
    if len(channels) > session.limits["channels_per_client"]:
        raise Disconnected(CHANNEL_LIMIT)
    joined = []
    for channel in channels:
        since = _since(request.subs.get(channel))
        membership, subscribed = await session.memberships.join(channel, None, since)
        joined.append((membership, _subscribe_result(session, subscribed, since)))
    return joined


async def _refresh(session: ClientSession, id: int, request: RefreshRequest) -> None:
    if request.token:
        raise CommandFailed(NOT_AVAILABLE)
    _reply(session, id, "refresh", RefreshResult(client=session.id, version=VERSION))


async def _sub_refresh(session: ClientSession, id: int, request: SubRefreshRequest) -> None:
    if request.token or request.type:
        raise CommandFailed(NOT_AVAILABLE)
    if session.memberships.get(request.channel) is None:
        raise CommandFailed(PERMISSION_DENIED)
    _reply(session, id, "sub_refresh", EMPTY)


# --- Subscriptions ---


async def _subscribe(session: ClientSession, id: int, request: SubscribeRequest) -> None:
    channel = _named(session, request.channel)
    if request.type or request.token or bytes(request.tf) not in (b"", b"null"):
        raise CommandFailed(NOT_AVAILABLE)
    if session.memberships.get(channel) is not None:
        raise CommandFailed(ALREADY_SUBSCRIBED)
    if len(session.memberships) >= session.limits["channels_per_client"]:
        raise CommandFailed(LIMIT_EXCEEDED)
    live = await _permitted(session, channel, "subscribe")
    since = _since(request)
    membership, subscribed = await session.memberships.join(channel, live, since)
    result = _subscribe_result(session, subscribed, since)
    if request.reject_unrecovered and result.was_recovering and not result.recovered:
        session.memberships.forget(membership)
        raise CommandFailed(UNRECOVERABLE_POSITION)
    _reply(session, id, "subscribe", result)
    await session.memberships.go_live(membership)


def _since(request: SubscribeRequest | None) -> Position | None:
    return Position(request.epoch, request.offset) if request is not None and request.recover else None


def _subscribe_result(session: ClientSession, subscribed: Subscribed, since: Position | None) -> SubscribeResult:
    """What a new subscriber is told. Recovery is complete or did not happen: clients count up from `offset`."""
    found = subscribed.publications
    recovered = subscribed.recovered and len(found) <= session.limits["recover_publications"]
    result = SubscribeResult(was_recovering=subscribed.was_recovering, recovered=recovered)
    if subscribed.position is not None:
        result.recoverable = result.positioned = True
        result.epoch, result.offset = subscribed.position
    if recovered and since is not None:
        result.offset = since.offset
        result.publications = [publication_result(publication) for publication in found]
    return result


async def _unsubscribe(session: ClientSession, id: int, request: ChannelRequest) -> None:
    membership = session.memberships.get(request.channel)
    if membership is not None:
        session.memberships.forget(membership)
    _reply(session, id, "unsubscribe", EMPTY)
    if membership is not None:
        await session.memberships.leave(request.channel)


# --- Channels ---


async def _publish(session: ClientSession, id: int, request: PublishRequest) -> None:
    channel = _named(session, request.channel)
    if request.type:
        raise CommandFailed(NOT_AVAILABLE)
    if not bytes(request.data):
        raise CommandFailed(BAD_REQUEST)
    data = decode_data(request.data)
    live = await _permitted(session, channel, "publish", data)
    data = await live.on_publish(session.identity.user, data)
    await session.layer.publish(channel, data, info=session.info)
    _reply(session, id, "publish", EMPTY)


async def _presence(session: ClientSession, id: int, request: ChannelRequest) -> None:
    clients = await _present(session, request)
    result = PresenceResult({client: msgspec.Raw(info.to_json()) for client, info in clients.items()})
    _reply(session, id, "presence", result)


async def _presence_stats(session: ClientSession, id: int, request: ChannelRequest) -> None:
    clients = await _present(session, request)
    users = {info.user for info in clients.values()}
    _reply(session, id, "presence_stats", PresenceStatsResult(len(clients), len(users)))


async def _present(session: ClientSession, request: ChannelRequest) -> dict[str, Any]:
    channel = _named(session, request.channel)
    if not registry.policy_for(channel).presence:
        raise CommandFailed(NOT_AVAILABLE)
    await _permitted(session, channel, "presence")
    return cast("dict[str, Any]", await session.layer.presence(channel))


async def _history(session: ClientSession, id: int, request: HistoryRequest) -> None:
    channel = _named(session, request.channel)
    if not registry.policy_for(channel).keeps_history:
        raise CommandFailed(NOT_AVAILABLE)
    await _permitted(session, channel, "history")
    most = session.limits["history_publications"]
    limit = most if request.limit < 0 else min(request.limit, most)
    since = Position(request.since.epoch, request.since.offset) if request.since is not None else None
    found = await session.layer.history(channel, since=since, limit=limit, reverse=request.reverse)
    if since is not None and since.epoch not in ("", found.position.epoch) and not found.recovered:
        raise CommandFailed(UNRECOVERABLE_POSITION)
    publications = [publication_result(publication) for publication in found.publications]
    _reply(session, id, "history", HistoryResult(publications, *found.position))


# --- Calls ---


async def _rpc(session: ClientSession, id: int, request: RPCRequest) -> None:
    answer = await rpc.call(request.method, session.identity.user, decode_data(request.data))
    _reply(session, id, "rpc", RPCResult(answer))


async def _send(session: ClientSession, id: int, request: SendRequest) -> None:
    if not await rpc.message(session.identity.user, decode_data(request.data)):
        raise Disconnected(DISCONNECT_NOT_AVAILABLE)


# --- Shared rules ---


def _named(session: ClientSession, channel: str) -> str:
    if not 0 < len(channel) <= session.limits["channel_name"]:
        raise CommandFailed(BAD_REQUEST)
    return channel


async def _permitted(session: ClientSession, channel: str, action: Action, data: Any = None) -> LiveChannel:
    """The channel's object. Raises UnknownChannel, InvalidChannelName, or CommandFailed(103)."""
    live = registry.resolve(channel)
    if not await live.allows(action, session.identity.user, data):
        raise CommandFailed(PERMISSION_DENIED)
    return live


_HANDLERS: dict[str, Callable[[ClientSession, int, Any], Awaitable[None]]] = {
    "connect": _connect,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "publish": _publish,
    "presence": _presence,
    "presence_stats": _presence_stats,
    "history": _history,
    "rpc": _rpc,
    "send": _send,
    "refresh": _refresh,
    "sub_refresh": _sub_refresh,
}
