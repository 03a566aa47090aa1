"""The layers that are compared, and the message they carry."""

from __future__ import annotations

from typing import Any

from .bare import BareLayer

PUBSUB, CORE, OURS, NO_HISTORY, BARE = (
    "channels_redis pubsub", "channels_redis core", "livechannels", "livechannels no_history", "bare floor",
)  # fmt: skip
CONTENDERS = (PUBSUB, OURS, NO_HISTORY, CORE, BARE)
PLENTY = 50_000
"""No contender shall lose a message because the one process of a sample is late with reading."""


def make(name: str, url: str) -> Any:
    """A layer as a project would configure it, but for the room in its channels."""
    if name == BARE:
        return BareLayer(url)
    if name == PUBSUB:
        from channels_redis.pubsub import RedisPubSubChannelLayer

        return RedisPubSubChannelLayer(hosts=[url], capacity=PLENTY)
    if name == CORE:
        from channels_redis.core import RedisChannelLayer

        return RedisChannelLayer(hosts=[url], capacity=PLENTY)
    from livechannels.layer import LiveChannelLayer

    # `capacity` also bounds a group's history, which stays as shipped.
    more = {"no_history": ["*"]} if name == NO_HISTORY else {}
    return LiveChannelLayer(hosts=[url], channel_capacity={"*": PLENTY}, **more)


def message(number: int = 0, stamp: int = 0) -> dict[str, Any]:
    """Three levels deep, about 960 bytes as msgpack."""
    return {
        "type": "bench.message",
        "n": number,
        "t": stamp,
        "payload": {
            "series": [
                {"name": f"sensor-{at}", "value": at * 1.25, "labels": {"host": "web-1", "unit": "°C"}}
                for at in range(9)
            ],
            "meta": {"source": "bench", "tags": {"region": "eu-west", "rack": "r12"}, "text": "x" * 370},
        },
    }
