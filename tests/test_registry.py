from __future__ import annotations

import pytest
from django.test import override_settings

from livechannels import registry
from livechannels.channels import LiveChannel, ManagedStream
from livechannels.exceptions import ConfigurationError, InvalidChannelName, UnknownChannel
from livechannels.paths import live_path


class First(LiveChannel):
    history_size, history_ttl = 1, 60


class Second(LiveChannel):
    pass


PATHS = [live_path("a/<int:pk>", First), live_path("a/<path:rest>", Second), live_path("b", ManagedStream)]
declared = override_settings(LIVECHANNELS={"CHANNELS": "tests.test_registry.PATHS"})


@declared
def test_the_first_path_that_matches_answers() -> None:
    first, second = registry.resolve("a/1"), registry.resolve("a/x")
    assert (type(first), first.channel, first.kwargs) == (First, "a/1", {"pk": 1})
    assert (type(second), second.kwargs) == (Second, {"rest": "x"})
    assert registry.policy_for("a/1").keeps_history
    assert not registry.policy_for("a/x").keeps_history


@declared
@pytest.mark.parametrize("lookup", [registry.resolve, registry.policy_for])
def test_unknown_and_impossible_names(lookup: object) -> None:
    assert callable(lookup)
    with pytest.raises(UnknownChannel, match="'nowhere'"):
        lookup("nowhere")
    for name in ("", "a b", "ä", "x" * 256):
        with pytest.raises(InvalidChannelName):
            lookup(name)


@declared
def test_reverse_by_class() -> None:
    assert registry.reverse(First, {"pk": 4}) == "a/4"

    class Undeclared(LiveChannel):
        pass

    with pytest.raises(UnknownChannel, match="Undeclared"):
        registry.reverse(Undeclared, {})


def test_a_changed_setting_is_seen_at_once() -> None:
    with override_settings(LIVECHANNELS={"CHANNELS": [live_path("x", ManagedStream)]}):
        assert registry.policy_for("x").history_size == 300
    with override_settings(LIVECHANNELS={"CHANNELS": [live_path("x", Second)]}):
        assert registry.policy_for("x").history_size == 0
    with override_settings(LIVECHANNELS={}), pytest.raises(UnknownChannel):
        registry.policy_for("x")


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        ("tests.nowhere.live_channels", "cannot import"),
        ("tests.test_registry.NOTHING", "cannot import"),
        ("tests.test_registry.First", "a list of live_path"),
        ([live_path("a", First), "b"], "entry 2 is 'b'"),
    ],
)
def test_what_is_wrong_with_the_list_is_said(channels: object, text: str) -> None:
    with override_settings(LIVECHANNELS={"CHANNELS": channels}), pytest.raises(ConfigurationError, match=text) as info:
        registry.live_paths()
    assert info.value.check_id == "livechannels.E008"
