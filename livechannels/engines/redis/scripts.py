"""The Lua scripts: package data, one file per operation, known to Redis by their hash. Pure.

A line `-- include part.lua` stands for that file: scripts share parts as text, because Redis would make a shared
function anew at every call.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import NamedTuple

_FOLDER = resources.files(__package__) / "lua"
_INCLUDE = re.compile(rb"^ *-- include (\w+)\.lua$", re.MULTILINE)


class Script(NamedTuple):
    name: str
    source: bytes
    sha: str


def _text(name: str) -> bytes:
    return _INCLUDE.sub(lambda line: _text(line[1].decode()).rstrip(), (_FOLDER / f"{name}.lua").read_bytes())


def _load(name: str) -> Script:
    source = _text(name)
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


PUBLISH = _load("publish")
PUBLISH_FENCED = _load("publish_fenced")
PUBLISH_ONCE = _load("publish_once")
PUBLISH_AGAIN = _load("publish_again")
READ = _load("read")
TRIM = _load("trim")
QUEUE_PUSH = _load("queue_push")
QUEUE_POP = _load("queue_pop")
QUEUE_RETURN = _load("queue_return")
PLAIN_ADD = _load("plain_add")
PLAIN_DROP = _load("plain_drop")
ROSTER_SET = _load("roster_set")
ROSTER_DROP = _load("roster_drop")
ROSTER_GET = _load("roster_get")
LEASE_ACQUIRE = _load("lease_acquire")
LEASE_RENEW = _load("lease_renew")
LEASE_RELEASE = _load("lease_release")
LEASE_GET = _load("lease_get")
