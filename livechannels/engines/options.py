"""The CONFIG of a channel layer: every option, its default, and one clear error for each mistake. Pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from ..exceptions import ConfigurationError
from .endpoints import Endpoint, parse_hosts, parse_url

_NO_EFFECT = {
    "random_prefix_length": "messages are numbered by the server here, so they need no random prefix",
}


@dataclass(frozen=True)
class Options:
    """A checked CONFIG. Seconds everywhere; `hosts` is empty for the memory engine.

    `warnings` are (check id, text) pairs for options that are accepted but do nothing.
    """

    engine: Literal["memory", "redis"] = "memory"
    hosts: tuple[Endpoint, ...] = ()
    prefix: str = "asgi"
    expiry: float = 60
    group_expiry: float = 86400
    capacity: int = 100
    channel_capacity: Mapping[Any, int] = field(default_factory=dict)
    symmetric_encryption_keys: tuple[str | bytes, ...] = field(default=(), repr=False)
    serializer_format: str = "msgpack"
    on_gap: str | None = None
    on_disconnect: str | None = None
    on_reconnect: str | None = None
    no_history: tuple[str, ...] = ()
    message_limit: int = 16 * 1024 * 1024
    warnings: tuple[tuple[str, str], ...] = ()

    def keeps_group(self, group: str) -> bool:
        """Whether a group's messages are kept for recovery: all but those named by `no_history`."""
        return not self.no_history or not any(fnmatchcase(group, pattern) for pattern in self.no_history)


KNOWN = frozenset(
    {"ha_engine", "ha_engine_address", "ha_engine_password", "ha_prefix", "hosts", *_NO_EFFECT}
    | set(Options.__dataclass_fields__) - {"engine", "warnings"}
)


def nearest(name: str, known: Sequence[str] | frozenset[str]) -> str:
    """' Did you mean "x"?' for a misspelt name, or nothing."""
    found = difflib.get_close_matches(name, sorted(known), 1, 0.6)
    return f' Did you mean "{found[0]}"?' if found else ""


def _wrong(text: str, check_id: str = "livechannels.E005") -> ConfigurationError:
    return ConfigurationError(f"CHANNEL_LAYERS CONFIG: {text}", check_id=check_id)


def _number(config: Mapping[str, Any], name: str, default: float, *, whole: bool = False) -> Any:
    value = config.get(name, default)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    if not number or (whole and value != int(value)):
        kind = "a whole number above 0" if whole else "a number of seconds above 0"
        raise _wrong(f'"{name}" is {kind}, not {value!r}.')
    return int(value) if whole else value


def _names(config: Mapping[str, Any], name: str, what: str) -> tuple[Any, ...]:
    value = config.get(name) or ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _wrong(f'"{name}" is a list of {what}, not a bare {type(value).__name__}.')
    for place, entry in enumerate(value):
        # The entry itself may be a key, and is not shown.
        if not entry or not isinstance(entry, (str, bytes) if name == "symmetric_encryption_keys" else str):
            raise _wrong(f'"{name}"[{place}] is empty or not text: it is a list of {what}.')
    return tuple(value)


def _event(config: Mapping[str, Any], name: str) -> str | None:
    value = config.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise _wrong(f'"{name}" is the type of a message, such as "live.gap", not {value!r}.')
    return value


def _capacities(config: Mapping[str, Any]) -> dict[Any, int]:
    value = config.get("channel_capacity") or {}
    if not isinstance(value, Mapping):
        raise _wrong('"channel_capacity" is a dict of glob or compiled regex to capacity.')
    for pattern, capacity in value.items():
        if not isinstance(pattern, (str, re.Pattern)):
            raise _wrong(f'"channel_capacity" has the key {pattern!r}: use a glob or a compiled regex.')
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise _wrong(f'"channel_capacity" gives {pattern!r} the capacity {capacity!r}: use a whole number above 0.')
    return dict(value)


def _engine(config: Mapping[str, Any]) -> tuple[Literal["memory", "redis"], tuple[Endpoint, ...]]:
    name = config.get("ha_engine")
    address = config.get("ha_engine_address")
    if name not in (None, "", "memory", "redis"):
        hint = nearest(str(name), ("redis", "memory"))
        raise _wrong(f'"ha_engine" is "redis" or "memory", not {name!r}.{hint}', "livechannels.E001")
    if "hosts" in config and address:
        raise _wrong('"hosts" and "ha_engine_address" both say where Redis is: keep one of them.', "livechannels.E002")
    if name == "memory" or (not name and "hosts" not in config and not address):
        return "memory", ()
    if "hosts" in config:
        hosts = parse_hosts(config["hosts"])
    else:
        hosts = (parse_url(str(address or "127.0.0.1:6379")),)
    password = config.get("ha_engine_password")
    if password:
        hosts = tuple(replace(host, connection={**host.connection, "password": str(password)}) for host in hosts)
    return "redis", hosts


def parse(config: Mapping[str, Any]) -> Options:
    """Check a CONFIG. Raises ConfigurationError (with `check_id`) naming the option and the remedy."""
    for name in config:
        if name not in KNOWN:
            raise _wrong(f'"{name}" is not an option.{nearest(name, KNOWN)}', "livechannels.E003")
    engine, hosts = _engine(config)
    prefix = config.get("prefix", "asgi")
    if config.get("ha_prefix"):
        prefix = f"{config['ha_prefix']}.{prefix}"
    if not isinstance(prefix, str) or not prefix or len(prefix) > 100 or re.search(r"[\s{}*?\[\]\\^]", prefix):
        raise _wrong(f'"prefix" {prefix!r} is 1 to 100 characters without spaces, braces, brackets, \\, ^, * or ?.')
    warnings = tuple(
        ("livechannels.W002", f'CHANNEL_LAYERS CONFIG: "{name}" has no effect: {why}.')
        for name, why in _NO_EFFECT.items()
        if name in config
    )
    serializer = config.get("serializer_format", "msgpack")
    if not isinstance(serializer, str):
        raise _wrong(f'"serializer_format" is the name of a serializer, not {serializer!r}.')
    return Options(
        engine=engine,
        hosts=hosts,
        prefix=prefix,
        expiry=_number(config, "expiry", 60),
        group_expiry=_number(config, "group_expiry", 86400),
        capacity=_number(config, "capacity", 100, whole=True),
        channel_capacity=_capacities(config),
        symmetric_encryption_keys=_names(config, "symmetric_encryption_keys", "keys"),
        serializer_format=serializer,
        on_gap=_event(config, "on_gap"),
        on_disconnect=_event(config, "on_disconnect"),
        on_reconnect=_event(config, "on_reconnect"),
        no_history=_names(config, "no_history", "globs of group names"),
        message_limit=_number(config, "message_limit", 16 * 1024 * 1024, whole=True),
        warnings=warnings,
    )
