"""What every part of the layer stands on: its engine, its nodes, and commands from any loop or thread."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from ..engines.base import Command, Engine, Publish
from ..engines.options import Options, parse
from ..exceptions import EngineUnavailable, UnknownChannel
from ..messages import topics
from ..messages.policy import Policy
from ..node.node import Node
from ..serializers import Codec

logger = logging.getLogger(__name__)

T = TypeVar("T")

ACK_WITHIN = 1.0

startup_hooks: list[Callable[[Any, Node], None]] = []
"""Called once with the layer and each node that starts; this is how stream sources and the like attach themselves."""


def undeclared(channel: str) -> Policy:
    """The policy of every channel while `livechannels` is not in INSTALLED_APPS."""
    raise UnknownChannel(f'{channel!r}: no live channels are declared; add "livechannels" to INSTALLED_APPS.')


def make_engine(options: Options) -> Engine:
    """The engine that the options name. Makes no connection."""
    if options.engine == "memory":
        from ..engines.memory import MemoryEngine

        return MemoryEngine(options.prefix)
    from ..engines.redis import RedisEngine

    return RedisEngine(options)


class EngineAccess:
    """The engine of one layer, and a node for each of its loops that receives."""

    policies: Callable[[str], Policy] = staticmethod(undeclared)

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.options = parse(config)
        self.codec = Codec(self.options.serializer_format, self.options.symmetric_encryption_keys)
        self._reset()
        _made.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[asyncio.AbstractEventLoop, Node] = {}
        self.engine = make_engine(self.options)

    def node(self) -> Node:
        """The running loop's node, started on first use. Only for loops that receive: servers and workers."""
        loop = asyncio.get_running_loop()
        node = self._nodes.get(loop)
        if node is None:
            with self._lock:
                for other in [other for other in self._nodes if other.is_closed()]:
                    del self._nodes[other]
                node = self._nodes[loop] = self._make_node()
            node.start()
            for hook in startup_hooks:
                try:
                    hook(self, node)
                except Exception:
                    logger.exception("A startup hook failed")
        return node

    def _make_node(self) -> Node:
        raise NotImplementedError

    def nodes(self) -> list[Node]:
        """The nodes of this process, of loops that are still open."""
        with self._lock:
            return [node for loop, node in self._nodes.items() if not loop.is_closed()]

    def _node_here(self) -> Node | None:
        return self._nodes.get(asyncio.get_running_loop())

    async def run(self, command: Command[T]) -> T:
        """Run an engine command from any loop. Raises EngineUnavailable when the engine cannot be reached."""
        node = self._node_here()
        if node is not None:
            return await node.port.run(command)
        return await self.engine.run_detached(command)

    def run_sync(self, command: Command[T]) -> T:
        """Run an engine command from plain synchronous code; blocks the thread at most two seconds."""
        return self.engine.run_sync(command)

    def _owner(self, channel: str) -> Node | None:
        part, bang, _ = channel.partition("!")
        if not bang:
            return None
        return next((node for node in self.nodes() if node.owns(part)), None)

    def _deliver_here(self, error: EngineUnavailable, command: Publish) -> None:
        """Serve local members without a position; who is served gets it only once, should the engine have taken it."""
        for node in self.nodes():
            if node.loop is running_loop():
                node.feeds.deliver_unplaced(command)
            else:
                node.loop.call_soon_threadsafe(node.feeds.deliver_unplaced, command)
        error.delivered_locally = True

    def _control(self, kind: str, payload: Mapping[str, Any]) -> Publish:
        return Publish(topics.CONTROL, self.codec.seal(msgspec.json.encode((kind, payload))))

    async def broadcast(self, kind: str, payload: Mapping[str, Any]) -> None:
        """A control message to every live node, this one included, at most once."""
        await self.run(self._control(kind, payload))

    def broadcast_sync(self, kind: str, payload: Mapping[str, Any]) -> None:
        """`broadcast` for plain synchronous code."""
        self.run_sync(self._control(kind, payload))

    def health(self) -> dict[str, Any]:
        """The state of this process's path to the engine; does no I/O."""
        nodes = self.nodes()
        bad = [node.health for node in nodes if not node.health.ok]
        worst = min(bad, key=lambda health: health.since) if bad else None
        state = worst or (nodes[0].health if nodes else None)
        rewind = all(node.health.rewind_detection for node in nodes)
        return {
            "status": "degraded" if worst else "ok",
            "since": state.since if state else time.time(),
            "node": nodes[0].id if nodes else "",
            "engine": self.engine.name,
            "detail": state.detail if state else "",
            "rewind_detection": "on" if rewind else "off",
        }


_made: weakref.WeakSet[EngineAccess] = weakref.WeakSet()


def _after_fork() -> None:
    # Nothing of the parent's may be touched: not its sockets, not its threads.
    for layer in list(_made):
        layer._reset()


os.register_at_fork(after_in_child=_after_fork)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The running loop, or None in plain synchronous code."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
