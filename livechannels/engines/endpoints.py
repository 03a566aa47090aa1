"""Where Redis is: every accepted form of a host becomes one `Endpoint`. Pure; nothing here connects."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

from ..exceptions import ConfigurationError

DEFAULT_PORT = 6379
_NAME = re.compile(r"[\w.\-]+")
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
        where = self.path or ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses
        )
        scheme = {"single": "unix" if self.path else "redis", "sentinel": "redis+sentinel", "cluster": "redis+cluster"}
        name = scheme[self.kind].replace("redis", "rediss", 1) if self.tls else scheme[self.kind]
        tail = f"/{self.master}" if self.master else ""
        return f"{name}://{where}{tail}/{self.db}" if self.kind != "cluster" else f"{name}://{where}"


def _refuse(value: object, why: str) -> ConfigurationError:
    shown = type(value).__name__
    if isinstance(value, str):
        # A password may stand before the @ and in the query; with an @ in the query nobody knows which is which.
        front, _, query = value.partition("?")
        place = "URL" if "@" in query else repr(front.rpartition("@")[2])
        shown = place + (" (credentials not shown)" if "@" in value or query else "")
    return ConfigurationError(f"Redis host {shown}: {why}. Accepted: {_FORMS}.", check_id="livechannels.E004")


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _port(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 65536 else None


def _address(text: str, whole: str, default: int = DEFAULT_PORT) -> tuple[str, int]:
    name, colon, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        name, number = text, str(default)
    port = _port(number)
    bracketed = name.startswith("[") and name.endswith("]")
    host = unquote(name[1:-1]) if bracketed else name
    if port is None or not (_is_ipv6(host) if bracketed else _NAME.fullmatch(host)):
        raise _refuse(whole, f"{text!r} is not host:port, or [IPv6 address]:port")
    return host, port


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
        if "@" in url:
            raise _refuse(url, "a password needs a scheme before it: redis://:password@host:port")
        return Endpoint("single", (_address(url, url),))
    base, _, extra = scheme.partition("+")
    known = base in ("redis", "rediss") and extra in ("", "sentinel", "cluster")
    if not known and scheme != "unix":
        raise _refuse(url, f"{scheme}:// is not a Redis URL scheme")
    location, _, query = rest.partition("?")
    authority, slash, path = location.partition("/")
    if "@" in path + query:
        raise _refuse(url, "write / ? and @ in a user, password or option as %2F %3F %40")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    kwargs = _login(unquote(user), unquote(password)) | _query(query, url)
    if base == "unix":
        socket = unquote(slash + path)
        if hosts or not path:
            raise _refuse(url, "a unix:// URL needs the socket's whole path: unix:///run/redis.sock")
        return Endpoint("single", (), {"path": socket} | kwargs, path=socket)
    addresses = tuple(
        _address(part, url, 26379 if extra == "sentinel" else DEFAULT_PORT) for part in hosts.split(",") if part
    )
    if not addresses and extra:
        raise _refuse(url, "no host in it")
    if len(addresses) > 1 and not extra:
        raise _refuse(url, "several hosts need redis+sentinel:// or redis+cluster://")
    master, database = _steps(path, extra, url)
    kwargs = database | kwargs
    if extra == "cluster" and kwargs.get("db"):
        raise _refuse(url, "a cluster has only database 0")
    kinds: dict[str, Literal["single", "sentinel", "cluster"]] = {"sentinel": "sentinel", "cluster": "cluster"}
    kind = kinds.get(extra, "single")
    return Endpoint(kind, addresses or (("localhost", DEFAULT_PORT),), kwargs, master=master, tls=base == "rediss")


def _steps(path: str, extra: str, url: str) -> tuple[str, dict[str, Any]]:
    """What the path of a URL names: the sentinels' master, and the database."""
    steps = [unquote(step) for step in path.split("/") if step]
    master = ""
    if extra == "sentinel":
        if not steps:
            raise _refuse(url, "redis+sentinel:// needs the master's name: …/mymaster/0")
        master, *steps = steps
    if len(steps) > 1 or (steps and not steps[0].isdigit()):
        raise _refuse(url, f"{'/'.join(steps)!r} is not a database number")
    return master, {"db": int(steps[0])} if steps else {}


def _login(user: str | None, password: str | None) -> dict[str, Any]:
    return ({"username": user} if user else {}) | ({"password": password} if password else {})


def _pair(value: object, whole: object) -> tuple[str, int]:
    host, port = value if isinstance(value, (tuple, list)) and len(value) == 2 else (None, None)
    number = _port(port)
    if not isinstance(host, str) or not (_NAME.fullmatch(host) or _is_ipv6(host)) or number is None:
        raise _refuse(whole, "an address in it is not a host name and a port from 1 to 65535")
    return host, number


def _parse_dict(value: Mapping[str, Any]) -> Endpoint:
    kwargs = dict(value)
    if not str(kwargs.get("db") or 0).isdecimal():
        raise _refuse(value, f'"db" is a database number, not {kwargs["db"]!r}')
    if "sentinels" in kwargs:
        sentinels = kwargs.pop("sentinels")
        if not sentinels or not isinstance(sentinels, (tuple, list)):
            raise _refuse(value, '"sentinels" is a list of (host, port)')
        addresses = tuple(_pair(pair, value) for pair in sentinels)
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
