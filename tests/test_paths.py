from __future__ import annotations

import uuid

import pytest

from livechannels.channels import LiveChannel, ManagedStream
from livechannels.exceptions import ConfigurationError, InvalidChannelName
from livechannels.paths import live_path


@pytest.mark.parametrize(
    ("pattern", "name", "kwargs"),
    [
        ("news", "news", {}),
        ("dashboard/<int:pk>", "dashboard/7", {"pk": 7}),
        ("stream/<slug:stream_id>/<path:measurement>", "stream/t/cpu/0", {"stream_id": "t", "measurement": "cpu/0"}),
        ("user/<str:name>", "user/ann.b=c", {"name": "ann.b=c"}),
        ("#<int:pk>", "#12", {"pk": 12}),
        ("$private:<slug:x>", "$private:y", {"x": "y"}),
        ("o/<uuid:key>", f"o/{uuid.UUID(int=1)}", {"key": uuid.UUID(int=1)}),
        ("<path:rest>", "anything/at:all", {"rest": "anything/at:all"}),
    ],
)
def test_patterns_match_and_reverse(pattern: str, name: str, kwargs: dict[str, object]) -> None:
    path = live_path(pattern, LiveChannel)
    assert path.match(name) == kwargs
    assert path.reverse(kwargs) == name
    assert path.parameters == tuple(kwargs)


@pytest.mark.parametrize("name", ["dashboard/x", "dashboard/7/8", "xdashboard/7", "dashboard/", "dashboard/7\n"])
def test_the_whole_name_must_fit(name: str) -> None:
    assert live_path("dashboard/<int:pk>", LiveChannel).match(name) is None


def test_reverse_refuses_what_would_not_be_found_again() -> None:
    path = live_path("dashboard/<int:pk>", LiveChannel)
    with pytest.raises(InvalidChannelName, match="does not fit"):
        path.reverse({"pk": "x"})
    with pytest.raises(InvalidChannelName, match="needs the parameter 'pk'"):
        path.reverse({})
    with pytest.raises(InvalidChannelName, match="not allowed"):
        live_path("n/<str:name>", LiveChannel).reverse({"name": "a b"})


def test_attributes_replace_class_attributes_for_this_path_only() -> None:
    path = live_path("a/<slug:b>", ManagedStream, history_size=7)
    assert path.channel_class.policy().history_size == 7
    assert issubclass(path.channel_class, ManagedStream)
    assert path.channel_class.__name__ == "ManagedStream"
    assert ManagedStream.history_size == 300


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="history_size"):
        live_path("a", ManagedStream, histroy_size=7)
    with pytest.raises(ConfigurationError, match="subclass of LiveChannel"):
        live_path("a", dict)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="invalid converter"):
        live_path("a/<integer:pk>", LiveChannel)
    with pytest.raises(ConfigurationError, match="matches no legal name"):
        live_path("a b/<int:pk>", LiveChannel)
