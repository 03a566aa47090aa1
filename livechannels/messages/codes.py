"""What the server tells a browser when something ends or fails: Centrifuge's codes and reasons. Pure.

Reasons are plain text of at most 123 bytes: they travel in close frames, and centrifuge-js tries to read JSON in them.
"""

from __future__ import annotations

from typing import NamedTuple


class Error(NamedTuple):
    """The answer to a command that cannot be carried out; clients try again iff it is temporary (or 109)."""

    code: int
    message: str
    temporary: bool = False


class Disconnect(NamedTuple):
    """Why the server ends a connection."""

    code: int
    reason: str

    @property
    def reconnect(self) -> bool:
        """Whether clients come back by themselves after this code."""
        return not (3500 <= self.code < 4000 or 4500 <= self.code < 5000)


class Unsubscribe(NamedTuple):
    """Why the server ends a subscription; from 2500 on, clients subscribe again at once."""

    code: int
    reason: str


class CommandFailed(Exception):
    """Raised to answer a command with an error."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class Disconnected(Exception):
    """Raised while a command is carried out to end the connection instead of answering."""

    def __init__(self, disconnect: Disconnect) -> None:
        super().__init__(disconnect.reason)
        self.disconnect = disconnect


INTERNAL = Error(100, "internal server error", True)
UNAUTHORIZED = Error(101, "unauthorized")
UNKNOWN_CHANNEL = Error(102, "unknown channel")
PERMISSION_DENIED = Error(103, "permission denied")
METHOD_NOT_FOUND = Error(104, "method not found")
ALREADY_SUBSCRIBED = Error(105, "already subscribed")
LIMIT_EXCEEDED = Error(106, "limit exceeded")
BAD_REQUEST = Error(107, "bad request")
NOT_AVAILABLE = Error(108, "not available")
TOKEN_EXPIRED = Error(109, "token expired")
EXPIRED = Error(110, "expired")
TOO_MANY_REQUESTS = Error(111, "too many requests", True)
UNRECOVERABLE_POSITION = Error(112, "unrecoverable position")
CONCURRENT_PAGINATION = Error(113, "concurrent pagination", True)

CLOSED = Disconnect(3000, "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown")
SERVER_ERROR = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "subscription expired")
SLOW = Disconnect(3008, "slow")
WRITE_ERROR = Disconnect(3009, "write error")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force reconnect")
NO_PONG = Disconnect(3012, "no pong")
RATE_EXCEEDED = Disconnect(3013, "too many requests")
STATE_INVALIDATED = Disconnect(3014, "state invalidated")
INVALID_TOKEN = Disconnect(3500, "invalid token")
BAD_FRAME = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_NO_RECONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
CHANNEL_LIMIT = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL = Disconnect(3506, "inappropriate protocol")
DISCONNECT_DENIED = Disconnect(3507, "permission denied")
DISCONNECT_NOT_AVAILABLE = Disconnect(3508, "not available")
TOO_MANY_ERRORS = Disconnect(3509, "too many errors")
# WebSocket's own code: both SDKs know it, and must see it in the close frame, without a disconnect push.
MESSAGE_TOO_BIG = Disconnect(1009, "message size limit")

UNSUBSCRIBED_BY_CLIENT = Unsubscribe(0, "unsubscribe called")
UNSUBSCRIBED_BY_SERVER = Unsubscribe(2000, "server unsubscribe")
UNSUBSCRIBED_DENIED = Unsubscribe(2000, "permission denied")
UNSUBSCRIBED_INSUFFICIENT = Unsubscribe(2500, "insufficient state")
UNSUBSCRIBED_EXPIRED = Unsubscribe(2501, "subscription expired")
UNSUBSCRIBED_INVALIDATED = Unsubscribe(2502, "state invalidated")
