from __future__ import annotations

import re

import pytest

from livechannels.engines.options import KNOWN, Options, parse
from livechannels.exceptions import ConfigurationError

HOSTS = ["redis://h:1/2"]


def refused(check_id: str, **config: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(config)
    assert caught.value.check_id == f"livechannels.{check_id}"
    return str(caught.value)


def test_the_defaults():
    assert (
        parse({}) == Options() == Options(engine="memory", prefix="asgi", expiry=60, group_expiry=86400, capacity=100)
    )


def test_every_option_is_taken():
    regex = re.compile("x.*")
    found = parse({
        "hosts": HOSTS, "ha_engine": "redis", "ha_engine_password": "s3cret", "ha_prefix": "grafana", "prefix": "p",
        "expiry": 1.5, "group_expiry": 20, "capacity": 7, "channel_capacity": {"a*": 1, regex: 2},
        "symmetric_encryption_keys": ["k3y", b"k2y"], "serializer_format": "json", "on_gap": "live.gap",
        "on_disconnect": "off", "on_reconnect": "on", "no_history": ["a*"], "message_limit": 99,
        "random_prefix_length": 12,
    })  # fmt: skip
    assert (found.engine, found.prefix, found.hosts[0].connection["password"]) == ("redis", "grafana.p", "s3cret")
    assert (found.expiry, found.group_expiry, found.capacity, found.message_limit) == (1.5, 20, 7, 99)
    assert found.channel_capacity == {"a*": 1, regex: 2}
    assert found.symmetric_encryption_keys == ("k3y", b"k2y") and found.serializer_format == "json"
    assert (found.on_gap, found.on_disconnect, found.on_reconnect) == ("live.gap", "off", "on")
    assert [check for check, _ in found.warnings] == ["livechannels.W002"]
    assert "random_prefix_length" in found.warnings[0][1]
    assert not re.search("k3y|k2y|s3cret", repr(found))


@pytest.mark.parametrize(
    ("config", "engine", "where"),
    [
        ({}, "memory", []),
        ({"ha_engine": "memory", "hosts": HOSTS}, "memory", []),
        ({"ha_engine": "redis"}, "redis", ["redis://127.0.0.1:6379/0"]),
        ({"hosts": None}, "redis", ["redis://localhost:6379/0"]),
        ({"hosts": []}, "redis", ["redis://localhost:6379/0"]),
        ({"hosts": HOSTS}, "redis", HOSTS),
        ({"ha_engine_address": "h:1"}, "redis", ["redis://h:1/0"]),
        ({"ha_engine": "redis", "ha_engine_address": "rediss://h:1/2"}, "redis", ["rediss://h:1/2"]),
        ({"ha_engine": "", "ha_engine_address": ""}, "memory", []),
    ],
)
def test_the_engine(config, engine, where):
    found = parse(config)
    assert (found.engine, [str(host) for host in found.hosts]) == (engine, where)


class TestErrors:
    def test_unknown_engine(self):
        assert 'Did you mean "redis"?' in refused("E001", ha_engine="rediss")

    def test_two_addresses(self):
        assert "keep one of them" in refused("E002", hosts=HOSTS, ha_engine_address="h:1")

    @pytest.mark.parametrize("name", sorted(KNOWN))
    def test_a_misspelt_option(self, name):
        assert f'"{name}x" is not an option. Did you mean "{name}"?' in refused("E003", **{name + "x": 1})

    def test_nothing_near(self):
        assert refused("E003", qqqq=1) == 'CHANNEL_LAYERS CONFIG: "qqqq" is not an option.'

    def test_an_unreadable_host(self):
        assert "s3cret" not in refused("E004", hosts=["redis://:s3cret@my host"])
        refused("E004", hosts="redis://h")
        refused("E004", ha_engine_address="h:x")

    @pytest.mark.parametrize("name", ["expiry", "group_expiry", "capacity", "message_limit"])
    @pytest.mark.parametrize("value", [0, -1, "60", None, True, float("nan"), float("inf")])
    def test_numbers(self, name, value):
        assert f'"{name}" is a' in refused("E005", **{name: value})

    def test_whole_numbers(self):
        assert "a whole number above 0, not 1.5" in refused("E005", capacity=1.5)

    @pytest.mark.parametrize("value", [["a"], {"a": 0}, {"a": True}, {"a": "1"}, {5: 1}])
    def test_capacities(self, value):
        assert '"channel_capacity"' in refused("E005", channel_capacity=value)

    @pytest.mark.parametrize("name", ["symmetric_encryption_keys", "no_history"])
    @pytest.mark.parametrize("value", ["s3cret", b"s3cret", {"s3cret"}, ["ok", 5], [""], ["s3cret", None]])
    def test_lists(self, name, value):
        text = refused("E005", **{name: value})
        assert f'"{name}"' in text and "list of" in text and "s3cret" not in text

    @pytest.mark.parametrize("name", ["on_gap", "on_disconnect", "on_reconnect"])
    @pytest.mark.parametrize("value", ["", 5, True])
    def test_events(self, name, value):
        assert "the type of a message" in refused("E005", **{name: value})

    @pytest.mark.parametrize("value", ["", "a b", "a{b", "a*", "a?", "a[b", "a\\b", "a^b", "x" * 101, 5, None])
    def test_prefix(self, value):
        assert "1 to 100 characters" in refused("E005", prefix=value)

    def test_serializer(self):
        assert "the name of a serializer" in refused("E005", serializer_format=5)


def test_no_history_names_groups_by_globs():
    found = parse({"no_history": ["tick.*", "exact"]})
    names = ["tick.1", "exact", "exactly", "Tick.1", "room"]
    assert [found.keeps_group(name) for name in names] == [False, False, True, True, True]
    assert parse({}).keeps_group("room")


def test_ha_prefix_stands_before_the_prefix():
    assert parse({"ha_prefix": "g"}).prefix == "g.asgi"
    assert parse({"ha_prefix": ""}).prefix == "asgi"
    refused("E005", ha_prefix="a b")
