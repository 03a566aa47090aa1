"""Every error livechannels raises on purpose.

LiveChannelsError
├── ConfigurationError      a setting is wrong (also a ValueError)
├── UnknownChannel          no pattern matches the live channel (also a LookupError)
├── InvalidChannelName      not a legal live channel name (also a TypeError)
├── InvalidFrame            not a data frame (also a ValueError)
├── EngineUnavailable       the store cannot be reached now (also a ConnectionError)
├── PublishUnknown          the answer to a publish was lost and cannot be looked up (also a ConnectionError)
├── NotReplicated           stored, but no replica confirmed it in time
├── LeaseLost               this publisher no longer leads the stream
└── ScopeError              the live channel lives in each node; it cannot be published from outside
"""

from __future__ import annotations


class LiveChannelsError(Exception):
    """Root of all errors raised on purpose; the class docstring is the default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(LiveChannelsError, ValueError):
    """A livechannels setting is wrong. `check_id` is the id of the system check that reports it."""

    def __init__(self, message: str | None = None, *, check_id: str = "livechannels.E005") -> None:
        super().__init__(message)
        self.check_id = check_id


class UnknownChannel(LiveChannelsError, LookupError):
    """No live_path() pattern matches this live channel; declare one in LIVECHANNELS["CHANNELS"]."""


class InvalidChannelName(LiveChannelsError, TypeError):
    """A live channel name is 1 to 255 ASCII characters of A-Z a-z 0-9 _ . : / = # @ $ , -"""


class InvalidFrame(LiveChannelsError, ValueError):
    """A frame is {"schema": {"name", "fields"}, "data": {"values"}} with columns of equal length."""


class EngineUnavailable(LiveChannelsError, ConnectionError):
    """The engine cannot be reached. Local members were served if `delivered_locally` is true.

    The engine may have carried the request out all the same, or do so later; those already served get it only once.
    """

    def __init__(self, message: str | None = None, *, delivered_locally: bool = False) -> None:
        super().__init__(message)
        self.delivered_locally = delivered_locally


class PublishUnknown(LiveChannelsError, ConnectionError):
    """The connection broke after the publish was sent, and without history nobody can say if it arrived."""


class NotReplicated(LiveChannelsError):
    """The publication is stored and delivered, but no replica confirmed it in time: a failover may lose it.

    `position` is where it is stored.
    """

    def __init__(self, message: str | None = None, *, position: object = None) -> None:
        super().__init__(message)
        self.position = position


class LeaseLost(LiveChannelsError):
    """Another node leads this stream now; the publication was refused."""


class ScopeError(LiveChannelsError):
    """This live channel has scope="node": only its own StreamSource on each node publishes to it."""
