"""What is sent to Redis, before it is decided who sends it. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, NamedTuple, TypeVar

import hiredis

from .scripts import Script

T = TypeVar("T")

pack = hiredis.pack_command


class Request(NamedTuple):
    """One Redis command. `key` decides the cluster slot; a `script` goes by EVALSHA, or whole when it is unknown."""

    key: str
    args: tuple[Any, ...]
    script: Script | None = None

    def by_hash(self) -> tuple[Any, ...]:
        return self.args if self.script is None else ("EVALSHA", self.script.sha, *self.args)

    def packed(self) -> bytes:
        """`by_hash` in Redis' own notation."""
        return pack(self.by_hash())  # type: ignore[no-any-return]

    def in_full(self) -> tuple[Any, ...]:
        return self.args if self.script is None else ("EVAL", self.script.source, *self.args)


Batch = list[Request]
Operation = Generator[Batch, list[Any], T]


def script_request(script: Script, keys: Iterable[str], *args: Any) -> Request:
    keys = list(keys)
    return Request(keys[0], (len(keys), *keys, *args), script)


def ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
