"""The least that a Redis user needs: which commands, keys and pub/sub names this engine touches. Pure."""

from __future__ import annotations

import re

from ..endpoints import Endpoint
from . import scripts
from .keys import Keys

_SENT = frozenset(
    {"auth", "client|setname", "del", "eval", "evalsha", "info", "ping", "publish", "scan", "select", "subscribe"}
    | {"time", "unsubscribe", "wait"}
)
_SENT_TO_CLUSTERS = frozenset({"asking", "cluster|slots", "command", "spublish", "ssubscribe", "sunsubscribe"})
_CALL = re.compile(rb"redis\.p?call\(\s*['\"]([A-Za-z]+)['\"]")


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
