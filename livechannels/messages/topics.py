"""Names: live channels, and the topics that groups, inboxes, queues and live channels are to an engine. Pure."""

from __future__ import annotations

import re

from ..exceptions import InvalidChannelName

LIVE_NAME_LENGTH = 255
_LIVE_NAME = re.compile(r"[A-Za-z0-9_.:/=#@$,\-]{1,255}")

CONTROL = "c/all"
NODES = "c/nodes"
CHANNELS = "c/channels"
STREAMS = "c/streams"


def check_live_name(name: object) -> str:
    """The name, if it is a legal live channel name; else InvalidChannelName saying what is wrong with it."""
    if isinstance(name, str) and _LIVE_NAME.fullmatch(name):
        return name
    if not isinstance(name, str):
        raise InvalidChannelName(f"A live channel name is a str, not {type(name).__name__}.")
    if not name or len(name) > LIVE_NAME_LENGTH:
        raise InvalidChannelName(
            f"A live channel name has 1 to {LIVE_NAME_LENGTH} characters; this one has {len(name)}."
        )
    wrong = next(char for char in name if not _LIVE_NAME.fullmatch(char))
    raise InvalidChannelName(
        f"{name!r} is not a live channel name: {wrong!r} is not allowed; use A-Z a-z 0-9 _ . : / = # @ $ , -"
    )


def group(name: str) -> str:
    """The topic of a Channels group."""
    return "g/" + name


def group_name(topic: str) -> str:
    """The group of a group's topic."""
    return topic[2:]


def inbox(node: str) -> str:
    """The topic that carries what is sent to one node's `!` channels."""
    return "n/" + node


def queue(channel: str) -> str:
    """The topic of a plain channel, read by competing workers."""
    return "q/" + channel


def live(channel: str) -> str:
    """The topic of a live channel; its lease shares it, so that fence and publish are one step."""
    return "l/" + channel


def presence(channel: str) -> str:
    """The roster of clients on a live channel."""
    return "p/" + channel


def lock(name: str) -> str:
    """The topic whose lease is the leader_lock of this name."""
    return "k/" + name
