from __future__ import annotations

from typing import Any

import pytest

from livechannels.engines.endpoints import Endpoint, parse_host, parse_hosts, parse_url
from livechannels.exceptions import ConfigurationError

SECRET = "s3cret"
LOCAL = (("localhost", 6379),)


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "addresses", "shown"),
        [
            ("h", (("h", 6379),), "redis://h:6379/0"),
            ("h:70", (("h", 70),), "redis://h:70/0"),
            ("127.0.0.1:6379", (("127.0.0.1", 6379),), "redis://127.0.0.1:6379/0"),
            ("[::1]", (("::1", 6379),), "redis://[::1]:6379/0"),
            ("[::1]:70", (("::1", 70),), "redis://[::1]:70/0"),
            ("redis://", LOCAL, "redis://localhost:6379/0"),
            ("redis:///3", LOCAL, "redis://localhost:6379/3"),
            ("redis://my_host-1.example/0", (("my_host-1.example", 6379),), "redis://my_host-1.example:6379/0"),
            ("REDIS://h:70/15", (("h", 70),), "redis://h:70/15"),
            ("rediss://h:70/2", (("h", 70),), "rediss://h:70/2"),
            ("redis://[2001:db8::7]:70/2", (("2001:db8::7", 70),), "redis://[2001:db8::7]:70/2"),
            ("redis://[fe80::1%25eth0]:70", (("fe80::1%eth0", 70),), "redis://[fe80::1%eth0]:70/0"),
            ("redis+sentinel://a,b:1/main/2", (("a", 26379), ("b", 1)), "redis+sentinel://a:26379,b:1/main/2"),
            ("rediss+sentinel://a/main", (("a", 26379),), "rediss+sentinel://a:26379/main/0"),
            ("redis+cluster://a,b:1", (("a", 6379), ("b", 1)), "redis+cluster://a:6379,b:1"),
            ("rediss+cluster://[::1]:70,b", (("::1", 70), ("b", 6379)), "rediss+cluster://[::1]:70,b:6379"),
        ],
    )
    def test_addresses(self, url, addresses, shown):
        endpoint = parse_url(url)
        assert endpoint.addresses == addresses
        assert str(endpoint) == shown and repr(endpoint) == f"<Endpoint {shown}>"
        assert endpoint.tls == shown.startswith("rediss")
        assert endpoint.kind == next((kind for kind in ("sentinel", "cluster") if kind in url), "single")

    @pytest.mark.parametrize(
        ("login", "user", "password"),
        [
            (":s3cret", None, "s3cret"),
            ("ann:s3cret", "ann", "s3cret"),
            ("ann", "ann", None),
            ("a%40b:p%40s%2F%3A%25%23%3F", "a@b", "p@s/:%#?"),
            (":a:b@c#d", None, "a:b@c#d"),
        ],
    )
    @pytest.mark.parametrize("url", ["redis://{}@h:1/0", "rediss://{}@h", "redis+sentinel://{}@h,i/m/0",
                                     "redis+cluster://{}@h,i", "unix://{}@/run/redis.sock"])  # fmt: skip
    def test_credentials(self, url, login, user, password):
        connection = parse_url(url.format(login)).connection
        assert (connection.get("username"), connection.get("password")) == (user, password)

    def test_query_options_have_their_types(self):
        found = parse_url(
            "redis://h?db=3&socket_timeout=1.5&health_check_interval=7&max_connections=9&protocol=3"
            "&ssl_check_hostname=False&ssl_cert_reqs=none&password=p%40w&client_name=web"
        )
        assert found.connection == {
            "db": 3, "socket_timeout": 1.5, "health_check_interval": 7, "max_connections": 9, "protocol": 3,
            "ssl_check_hostname": False, "ssl_cert_reqs": "none", "password": "p@w", "client_name": "web",
        }  # fmt: skip
        assert found.db == 3

    def test_a_unix_socket(self):
        found = parse_url("unix:///run/my%20redis.sock?db=2")
        assert (found.kind, found.addresses, found.path, found.db) == ("single", (), "/run/my redis.sock", 2)
        assert found.connection["path"] == "/run/my redis.sock"
        assert str(found).startswith("unix:///run/my redis.sock")

    def test_the_master_and_its_database(self):
        found = parse_url(f"redis+sentinel://u:{SECRET}@a:1,b:2/my%2Fmain/2")
        assert (found.master, found.db, found.connection["password"]) == ("my/main", 2, SECRET)


class TestValues:
    @pytest.mark.parametrize("value", [("h", 70), ["h", 70], ("h", "70"), {"host": "h", "port": 70},
                                       {"address": ("h", 70)}, {"address": "redis://h:70"}, "h:70"])  # fmt: skip
    def test_one_server_in_every_form(self, value):
        found = parse_host(value)
        assert (found.kind, found.addresses, found.tls, found.db) == ("single", (("h", 70),), False, 0)

    def test_an_ipv6_pair_needs_no_brackets(self):
        assert parse_host(("::1", 70)).addresses == (("::1", 70),)

    def test_a_dict_of_connection_arguments(self):
        found = parse_host({"host": "h", "db": 1, "password": SECRET, "ssl": True, "socket_timeout": 3})
        assert found.addresses == (("h", 6379),) and found.tls and found.db == 1
        assert found.connection == {"db": 1, "password": SECRET, "socket_timeout": 3}

    def test_a_dict_without_a_host(self):
        assert parse_host({"db": 1}).addresses == LOCAL

    def test_a_dict_with_an_address_url(self):
        found = parse_host({"address": f"rediss://u:{SECRET}@h/3", "ssl_cert_reqs": None, "db": 4})
        assert found.tls and found.db == 4
        assert found.connection == {"username": "u", "password": SECRET, "ssl_cert_reqs": None, "db": 4}

    def test_a_dict_with_a_socket(self):
        for value in ({"path": "/run/r.sock", "db": 1}, {"address": "unix:///run/r.sock", "db": 1}):
            found = parse_host(value)
            assert (found.path, found.addresses, found.db) == ("/run/r.sock", (), 1)

    def test_the_sentinel_dict(self):
        value = {
            "sentinels": [("a", 1), ["b", 2]], "master_name": "main", "db": 2, "password": SECRET, "ssl": True,
            "sentinel_kwargs": {"password": "other"},
        }  # fmt: skip
        found = parse_host(value)
        assert (found.kind, found.addresses, found.master) == ("sentinel", (("a", 1), ("b", 2)), "main")
        assert found.tls and found.db == 2
        assert found.connection == {"db": 2, "password": SECRET} and found.sentinel == {"password": "other"}
        assert len(value) == 6, "the setting itself stays as it is"

    def test_an_endpoint_is_taken_as_it_is(self):
        endpoint = parse_url("h")
        assert parse_host(endpoint) is endpoint


class TestHosts:
    @pytest.mark.parametrize("value", [None, [], ()])
    def test_none_means_localhost(self, value):
        assert [host.addresses for host in parse_hosts(value)] == [LOCAL]

    def test_several(self):
        assert [str(host) for host in parse_hosts(["redis://a", ("b", 1), {"host": "c"}])] == [
            "redis://a:6379/0", "redis://b:1/0", "redis://c:6379/0",
        ]  # fmt: skip

    @pytest.mark.parametrize("value", ["redis://h", b"redis://h", {"host": "h"}, 5, {("h", 1)}])
    def test_no_list(self, value):
        with pytest.raises(ConfigurationError, match=r"hosts is a list of hosts, not a \w+: write \"hosts\"") as caught:
            parse_hosts(value)
        assert caught.value.check_id == "livechannels.E004"


@pytest.mark.parametrize(
    "value",
    [
        f"redis://u:{SECRET}@h/1",
        f"rediss://:{SECRET}@h",
        f"unix://:{SECRET}@/run/r.sock",
        f"redis+sentinel://:{SECRET}@h/m",
        f"redis+cluster://:{SECRET}@h",
        f"redis://h?password={SECRET}",
        {"host": "h", "password": SECRET},
        {"address": f"redis://:{SECRET}@h"},
        {"path": "/run/r.sock", "password": SECRET},
        {"sentinels": [("h", 1)], "master_name": "m", "sentinel_kwargs": {"password": SECRET}, "password": SECRET},
    ],
)
def test_a_password_is_kept_and_never_shown(value):
    endpoint = parse_host(value)
    assert endpoint.connection["password"] == SECRET
    for shown in (str(endpoint), repr(endpoint), f"{endpoint}", repr((endpoint,)), f"{endpoint!r:>9}"):
        assert SECRET not in shown


WRONG: list[tuple[Any, str, str]] = [
    ("http://u:s3cret@h", "'h' (credentials not shown)", "http:// is not a Redis URL scheme"),
    ("redis+magic://h", "'redis+magic://h'", "redis+magic:// is not a Redis URL scheme"),
    ("rediss://:s3cret@h:99999", "'h:99999'", "'h:99999' is not host:port"),
    ("h:0", "'h:0'", "'h:0' is not host:port"),
    ("redis://h:+1", "'redis://h:+1'", "'h:+1' is not host:port"),
    ("redis://h:６３", "'redis://h:６３'", "is not host:port"),
    ("", "''", "'' is not host:port"),
    ("::1", "'::1'", "[IPv6 address]:port"),
    ("redis://[::1", "'redis://[::1'", "[IPv6 address]:port"),
    ("redis://[zz]:1", "'redis://[zz]:1'", "[IPv6 address]:port"),
    ("u:s3cret@h:1", "'h:1'", "a password needs a scheme before it: redis://:password@host:port"),
    ("redis://a,b", "'redis://a,b'", "several hosts need redis+sentinel:// or redis+cluster://"),
    ("redis://h/x", "'redis://h/x'", "'x' is not a database number"),
    ("redis://:s3cret@h/1/2", "'h/1/2'", "'1/2' is not a database number"),
    ("redis://h?db=x&password=s3cret", "'redis://h'", "db=x in the query is not a number"),
    ("redis://h?db=x&password=a@s3cret", "URL (credentials not shown)", "as %2F %3F %40"),
    ("redis://:s3cret/x@h", "'h'", "as %2F %3F %40"),
    ("redis://:12/s3cret@h", "'h'", "as %2F %3F %40"),
    ("redis://:s3cret?x@h", "URL (credentials not shown)", "as %2F %3F %40"),
    ("redis+sentinel://:s3cret@a", "'a'", "needs the master's name: …/mymaster/0"),
    ("redis+sentinel:///m", "'redis+sentinel:///m'", "no host in it"),
    ("redis+cluster://:s3cret@a/1", "'a/1'", "a cluster has only database 0"),
    ("unix://:s3cret@", "''", "needs the socket's whole path"),
    ("unix://run/r.sock", "'unix://run/r.sock'", "needs the socket's whole path"),
    ({"sentinels": [("a", 1)], "password": "s3cret"}, "dict", "a Sentinel dict needs master_name"),
    ({"sentinels": [], "master_name": "m", "password": "s3cret"}, "dict", '"sentinels" is a list of (host, port)'),
    ({"sentinels": "a:1", "master_name": "m"}, "dict", '"sentinels" is a list of (host, port)'),
    ({"sentinels": ["a"], "master_name": "m"}, "dict", "a port from 1 to 65535"),
    ({"host": "h", "port": "x", "password": "s3cret"}, "dict", "a port from 1 to 65535"),
    ({"host": "h", "db": "x", "password": "s3cret"}, "dict", "\"db\" is a database number, not 'x'"),
    ({"address": 5}, "dict", "a port from 1 to 65535"),
    (("h",), "tuple", "a port from 1 to 65535"),
    (("h", 0), "tuple", "a port from 1 to 65535"),
    (["h", 65536], "list", "a port from 1 to 65535"),
    ((b"h", 1), "tuple", "a port from 1 to 65535"),
    (5, "int", "this type is not understood"),
    (None, "NoneType", "this type is not understood"),
    (b"redis://h", "bytes", "this type is not understood"),
]


@pytest.mark.parametrize(("value", "where", "why"), WRONG, ids=lambda value: str(value)[:30])
def test_an_error_says_where_what_and_how_without_credentials(value, where, why):
    with pytest.raises(ConfigurationError) as caught:
        parse_host(value)
    text = str(caught.value)
    assert text.startswith(f"Redis host {where}") and why in text
    assert "Accepted: redis://host:6379/0, rediss://…, unix://" in text
    assert SECRET not in text
    assert caught.value.check_id == "livechannels.E004"


@pytest.mark.parametrize(
    "host", ["my host", " h", "h ", "h\n", "h\t", "a;b", "a\\b", 'a"b', "a{b", "<h>", "a|b", "a\0b"]
)
@pytest.mark.parametrize("form", ["redis://{}", "redis://{}:70/0", "{}:70", "redis+sentinel://a,{}/m",
                                  "redis+cluster://a,{}:1"])  # fmt: skip
def test_illegal_characters_in_a_host_name(host, form):
    with pytest.raises(ConfigurationError, match="is not host:port"):
        parse_url(form.format(host))


@pytest.mark.parametrize("host", ["my host", "h\n", "", "a/b", "a@b"])
def test_illegal_characters_outside_urls(host):
    for value in ((host, 1), {"host": host}, {"address": (host, 1)}, {"sentinels": [(host, 1)], "master_name": "m"}):
        with pytest.raises(ConfigurationError, match="not a host name"):
            parse_host(value)


def test_endpoints_compare_by_what_they_are():
    assert parse_url("redis://h:1/2") == parse_url("redis://h:1/2") != parse_url("redis://h:1/3")
    assert isinstance(parse_url("h"), Endpoint)
