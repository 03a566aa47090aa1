from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from livechannels.channels import LiveChannel, ManagedStream
from livechannels.checks import check_channels, check_layers, check_settings
from livechannels.dashboards import DashboardChannel
from livechannels.paths import live_path
from livechannels.streams.source import StreamSource
from tests.testapp.models import Board

OURS = "livechannels.layer.LiveChannelLayer"


def ids(messages: list[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("livechannels.") for message in messages]


def channel_findings() -> list[CheckMessage]:
    """Without W007, which depends on what other test modules have declared; it has a test of its own."""
    return [message for message in check_channels() if message.id != "livechannels.W007"]


def layer(**config: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": OURS, "CONFIG": config}}


def live(**settings: Any) -> Any:
    return override_settings(LIVECHANNELS=settings)


@pytest.mark.parametrize(
    ("config", "expected", "text"),
    [
        ({"hosts": ["redis://localhost:6379/0"]}, [], ""),
        ({"hosts": None}, [], ""),
        ({"ha_engine": "redis", "ha_engine_address": "127.0.0.1:6379"}, [], ""),
        ({}, ["W001"], "hosts"),
        ({"ha_engine": "memory"}, ["W001"], "memory engine"),
        ({"ha_engine": "reddis"}, ["E001"], '"redis"'),
        ({"hosts": [("localhost", 6379)], "ha_engine_address": "localhost:6379"}, ["E002"], "keep one"),
        ({"hosts": [("localhost", 6379)], "capactiy": 5}, ["E003"], '"capacity"'),
        ({"hosts": ["http://localhost"]}, ["E004"], "http://localhost"),
        ({"hosts": ["redis://localhost:port/0"]}, ["E004"], "port"),
        ({"hosts": "redis://localhost"}, ["E004"], "list"),
        ({"hosts": [("localhost", 6379)], "capacity": 0}, ["E005"], '"capacity"'),
        ({"hosts": [("localhost", 6379)], "random_prefix_length": 8}, ["W002"], "random_prefix_length"),
    ],
)
def test_the_config_of_a_layer(config: dict[str, Any], expected: list[str], text: str) -> None:
    with override_settings(CHANNEL_LAYERS=layer(**config), DEBUG=False):
        messages = check_layers()
    assert ids(messages) == expected
    for message in messages:
        assert text in message.msg + str(message.hint)
        assert "CHANNEL_LAYERS['default']" in message.msg


def test_the_memory_engine_is_fine_while_debug_is_on() -> None:
    with override_settings(CHANNEL_LAYERS=layer(), DEBUG=True):
        assert check_layers() == []


def test_no_password_is_shown() -> None:
    with override_settings(CHANNEL_LAYERS=layer(hosts=["redis://user:s3cret@localhost:x"])):
        messages = check_layers()
    assert ids(messages) == ["E004"]
    assert "s3cret" not in str(messages)


@pytest.mark.parametrize(
    ("layers", "alias", "text"),
    [
        ({}, "default", "not in CHANNEL_LAYERS"),
        (layer(hosts=None), "defualt", 'Did you mean "default"?'),
        ({"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, "default", "need ours"),
        ({"default": {"BACKEND": "no.such.Backend"}}, "default", "need ours"),
    ],
)
def test_the_alias_must_be_ours(layers: dict[str, Any], alias: str, text: str) -> None:
    with override_settings(CHANNEL_LAYERS=layers), live(LAYER=alias):
        messages = check_layers()
    assert ids(messages) == ["E009"]
    assert text in messages[0].msg


def test_other_layers_are_none_of_our_business() -> None:
    layers = {**layer(hosts=None), "other": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"x": 1}}}
    with override_settings(CHANNEL_LAYERS=layers):
        assert check_layers() == []


@pytest.mark.parametrize(
    ("configured", "expected", "text"),
    [
        ({}, [], ""),
        ({"CHANELS": "x"}, ["E006"], 'Did you mean "CHANNELS"?'),
        (["CHANNELS"], ["E006"], "is a dict"),
        ({"LIMITS": {"mesage_size": 1}}, ["E007"], 'Did you mean "message_size"?'),
        ({"LIMITS": {"message_size": -1}}, ["E007"], "-1"),
        ({"LIMITS": {"message_size": "64k"}}, ["E007"], "64k"),
        ({"LIMITS": ["message_size"]}, ["E007"], "is a dict"),
        ({"PUSH_TOKENS": "secret"}, ["E010"], "list of strings"),
        ({"API_KEYS": [1]}, ["E010"], "list of strings"),
        ({"ALLOWED_ORIGINS": "*"}, ["E010"], "list of strings"),
        ({"LEASE_TTL": 0.1}, ["E010"], "0.1"),
        ({"LEASE_TTL": 3600}, ["E010"], "3600"),
        ({"LEASE_TTL": "3"}, ["E010"], "number of seconds"),
        ({"JWT": {"secret": "x"}}, ["W002"], "JWT"),
    ],
)
def test_the_settings(configured: Any, expected: list[str], text: str) -> None:
    with override_settings(LIVECHANNELS=configured, ASGI_APPLICATION="project.asgi.application"):
        messages = check_settings()
    assert ids(messages) == expected
    for message in messages:
        assert text in message.msg


def test_a_wrong_token_is_not_repeated() -> None:
    with live(PUSH_TOKENS="s3cret-token"):
        assert "s3cret" not in str(check_settings())


@pytest.mark.parametrize("value", [None, ""])
def test_asgi_application_is_missed(value: Any) -> None:
    with override_settings(ASGI_APPLICATION=value, LIVECHANNELS={}):
        assert ids(check_settings()) == ["W004"]


class Odd(LiveChannel):
    recovery = "streams"  # type: ignore[assignment]
    scope = "world"  # type: ignore[assignment]


class Forgetful(LiveChannel):
    history_size = 10


class SyncCleaner(LiveChannel):
    def on_publish(self, user: Any, data: Any) -> Any:  # type: ignore[override]
        return data


class Unnamed(StreamSource):
    always = True


BROKEN = 1


@pytest.mark.parametrize(
    ("channels", "expected", "text"),
    [
        ("tests.live.live_channels", [], ""),
        ("tests.no_such_module.live_channels", ["E008"], "cannot import"),
        ("tests.test_checks.BROKEN", ["E008"], "a list"),
        ("tests.broken_live.live_channels", ["E008"], "ZeroDivisionError"),
        ([live_path("a", Odd)], ["E011", "E011"], "one of"),
        ([live_path("a", ManagedStream, history_size=-1)], ["E011"], "-1"),
        ([live_path("a", SyncCleaner)], ["E011"], "async"),
        ([live_path("a/<int:pk>", Unnamed)], ["E008"], "always = True needs a pattern without parameters"),
        ([live_path("a", Forgetful)], ["W005"], "history_ttl is 0"),
    ],
)
def test_the_channels(channels: Any, expected: list[str], text: str) -> None:
    with override_settings(DEBUG=True), live(CHANNELS=channels):
        messages = channel_findings()
    assert ids(messages) == expected
    for message in messages:
        assert text in message.msg


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("board/<int:pkk>", 'Did you mean "pk"?'), ("board", "names no object"), ("board/<slug:title>", "")],
)
def test_the_parameters_of_a_dashboard_are_fields(pattern: str, text: str) -> None:
    from tests.live import live_channels

    rest = [path for path in live_channels if not path.pattern.startswith("board/")]
    with live(CHANNELS=[live_path(pattern, live_channels[0].channel_class), *rest]), override_settings(DEBUG=True):
        messages = channel_findings()
    assert ids(messages) == (["E012"] if text else [])
    assert text in str(messages)


def test_a_dashboard_channel_needs_a_model_and_a_path() -> None:
    with live(CHANNELS=[live_path("board/<int:pk>", DashboardChannel)]), override_settings(DEBUG=True):
        assert "for_model" in str(check_channels()[0].hint)
    with live(CHANNELS=[]):
        unrouted = [message for message in check_channels() if message.id == "livechannels.W007"]
    assert any(Board._meta.label in message.msg for message in unrouted)


def test_dashboards_want_the_middleware() -> None:
    with override_settings(MIDDLEWARE=[], DEBUG=True):
        assert ids(channel_findings()) == ["W006"]


@pytest.mark.parametrize(
    ("tokens", "debug", "expected"),
    [
        (["x" * 16], False, []),
        (["x" * 15], False, ["W003"]),
        ([], False, ["W003"]),
        ([], True, []),
        (["x"], True, []),
    ],
)
def test_push_tokens(tokens: list[str], debug: bool, expected: list[str]) -> None:
    with override_settings(DEBUG=debug), live(CHANNELS="tests.live.live_channels", PUSH_TOKENS=tokens):
        assert ids(channel_findings()) == expected


def test_without_managed_streams_no_token_is_missed() -> None:
    with override_settings(DEBUG=False), live(CHANNELS=[live_path("a", LiveChannel)], PUSH_TOKENS=[]):
        assert "W003" not in ids(channel_findings())


def test_manage_py_check_runs_them() -> None:
    with override_settings(CHANNEL_LAYERS=layer(ha_engine="reddis")), pytest.raises(SystemCheckError) as info:
        call_command("check")
    assert "livechannels.E001" in str(info.value)
