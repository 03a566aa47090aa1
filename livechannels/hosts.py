"""Where Redis is: every accepted form of a host becomes one `Endpoint`. Pure; nothing here connects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from .exceptions import ConfigurationError

DEFAULT_PORT = 6379
_FORMS = (
    "redis://host:6379/0, rediss://…, unix:///path?db=0, redis+sentinel://h1:26379,h2:26379/master/0, "
    'redis+cluster://h1:6379,h2:6379, ("host", port), or a dict as redis-py takes it'
)


@dataclass(frozen=True, repr=False)
class Endpoint:
    """One Redis: a server, a master found through sentinels, or a cluster.

    `addresses` are the server, the sentinels or some cluster nodes. `connection` and `sentinel` are redis-py's
    connection arguments; they hold the password and never appear in repr or str.
    """

    kind: Literal["single", "sentinel", "cluster"]
    addresses: tuple[tuple[str, int], ...]
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel: Mapping[str, Any] = field(default_factory=dict, repr=False)
    master: str = ""
    tls: bool = False
    path: str = ""

    @property
    def db(self) -> int:
        return int(self.connection.get("db") or 0)

    def __repr__(self) -> str:
        return f"<Endpoint {self}>"

    def __str__(self) -> str:
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.addresses)
        scheme = {"single": "unix" if self.path else "redis", "sentinel": "redis+sentinel", "cluster": "redis+cluster"}
        name = scheme[self.kind].replace("redis", "rediss", 1) if self.tls else scheme[self.kind]
        tail = f"/{self.master}" if self.master else ""
        return f"{name}://{where}{tail}/{self.db}" if self.kind != "cluster" else f"{name}://{where}"


def _refuse(value: object, why: str) -> ConfigurationError:
    shown = type(value).__name__
    if isinstance(value, str):
        shown = repr(value.rsplit("@", 1)[-1]) + (" (credentials not shown)" if "@" in value else "")
    return ConfigurationError(f"Redis host {shown}: {why}. Accepted: {_FORMS}.", check_id="livechannels.E004")


def _address(text: str, whole: str, default: int = DEFAULT_PORT) -> tuple[str, int]:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(default)
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise _refuse(whole, f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def _query(query: str, whole: str) -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "db": int, "socket_timeout": float, "socket_connect_timeout": float, "health_check_interval": int,
        "max_connections": int, "protocol": int, "ssl_check_hostname": lambda v: v.lower() in ("1", "true", "yes"),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query):
        try:
            found[name] = kinds.get(name, str)(value)
        except ValueError:
            raise _refuse(whole, f"{name}={value} in the query is not a number") from None
    return found


def parse_url(url: str) -> Endpoint:
    """Read one Redis URL. Raises ConfigurationError that says which part is wrong, never showing credentials."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator:
        return Endpoint("single", (_address(url, url),))
    base, _, extra = scheme.partition("+")
    known = base in ("redis", "rediss") and extra in ("", "sentinel", "cluster")
    if not known and scheme != "unix":
        raise _refuse(url, f"{scheme}:// is not a Redis URL scheme")
    if base == "unix":
        parts = urlsplit(url)
        if not parts.path:
            raise _refuse(url, "a unix:// URL needs the socket's path")
        kwargs = {"path": unquote(parts.path)} | _login(parts.username, parts.password) | _query(parts.query, url)
        return Endpoint("single", (), kwargs, path=unquote(parts.path))
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    addresses = tuple(
        _address(part, url, 26379 if extra == "sentinel" else DEFAULT_PORT) for part in hosts.split(",") if part
    )
    if not addresses and extra:
        raise _refuse(url, "no host in it")
    if len(addresses) > 1 and not extra:
        raise _refuse(url, "several hosts need redis+sentinel:// or redis+cluster://")
    kwargs = _login(unquote(user), unquote(password)) | _query(query, url)
    steps = [unquote(step) for step in path.split("/") if step]
    master = ""
    if extra == "sentinel":
        if not steps:
            raise _refuse(url, "redis+sentinel:// needs the master's name: …/mymaster/0")
        master, *steps = steps
    if steps:
        if len(steps) > 1 or not steps[0].isdigit():
            raise _refuse(url, f"{'/'.join(steps)!r} is not a database number")
        kwargs.setdefault("db", int(steps[0]))
    if extra == "cluster" and kwargs.get("db"):
        raise _refuse(url, "a cluster has only database 0")
    kinds: dict[str, Literal["single", "sentinel", "cluster"]] = {"sentinel": "sentinel", "cluster": "cluster"}
    kind = kinds.get(extra, "single")
    return Endpoint(kind, addresses or (("localhost", DEFAULT_PORT),), kwargs, master=master, tls=base == "rediss")


def _login(user: str | None, password: str | None) -> dict[str, Any]:
    return ({"username": user} if user else {}) | ({"password": password} if password else {})


def _pair(value: Sequence[Any], whole: object) -> tuple[str, int]:
    if len(value) != 2 or not isinstance(value[0], str) or not str(value[1]).isdigit():
        raise _refuse(whole, "a tuple is (host, port)")
    return value[0], int(value[1])


def _parse_dict(value: Mapping[str, Any]) -> Endpoint:
    kwargs = dict(value)
    if "sentinels" in kwargs:
        addresses = tuple(_pair(pair, value) for pair in kwargs.pop("sentinels"))
        master = kwargs.pop("master_name", None)
        if not master:
            raise _refuse(value, "a Sentinel dict needs master_name")
        sentinel = dict(kwargs.pop("sentinel_kwargs", None) or {})
        tls = bool(kwargs.pop("ssl", False))
        return Endpoint("sentinel", addresses, kwargs, sentinel, master=master, tls=tls)
    if "address" in kwargs:
        address = kwargs.pop("address")
        found = parse_url(address) if isinstance(address, str) else Endpoint("single", (_pair(address, value),))
        tls = bool(kwargs.pop("ssl", found.tls))
        return Endpoint(
            found.kind, found.addresses, {**found.connection, **kwargs}, found.sentinel, found.master, tls, found.path
        )
    host, port = kwargs.pop("host", "localhost"), kwargs.pop("port", DEFAULT_PORT)
    tls = bool(kwargs.pop("ssl", False))
    if "path" in kwargs:
        return Endpoint("single", (), kwargs, path=str(kwargs["path"]), tls=tls)
    return Endpoint("single", (_pair((host, port), value),), kwargs, tls=tls)


def parse_host(value: object) -> Endpoint:
    """One entry of `hosts`, in any form channels_redis takes, or any of our URLs."""
    if isinstance(value, Endpoint):
        return value
    if isinstance(value, str):
        return parse_url(value)
    if isinstance(value, Mapping):
        return _parse_dict(value)
    if isinstance(value, (tuple, list)):
        return Endpoint("single", (_pair(value, value),))
    raise _refuse(value, "this type is not understood")


def parse_hosts(value: object) -> tuple[Endpoint, ...]:
    """The option `hosts`: a list; None and [] mean localhost:6379. A bare string is refused, as channels_redis does."""
    if value is None or value == [] or value == ():
        return (Endpoint("single", (("localhost", DEFAULT_PORT),)),)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise ConfigurationError(
            f'hosts is a list of hosts, not a {type(value).__name__}: write "hosts": [ … ]. Accepted in it: {_FORMS}.',
            check_id="livechannels.E004",
        )
    return tuple(parse_host(entry) for entry in value)
