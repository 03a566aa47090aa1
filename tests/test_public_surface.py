"""What other people's programs import: every public path, wherever the module behind it lives."""

from __future__ import annotations

from importlib import import_module

import pytest

import livechannels

PUBLIC = [
    *(f"livechannels.{name}" for name in livechannels.__all__),
    "livechannels.asgi.live_application",
    "livechannels.consumers.LiveConsumer",
    "livechannels.dashboards.ActingUserMiddleware",
    "livechannels.dashboards.acting_user",
    "livechannels.dashboards.notify_deleted",
    "livechannels.dashboards.notify_saved",
    "livechannels.exceptions.EngineUnavailable",
    "livechannels.exceptions.LeaseLost",
    "livechannels.exceptions.PublishUnknown",
    "livechannels.exceptions.UnknownChannel",
    "livechannels.generic.DirectDispatchMixin",
    "livechannels.layer.LiveChannelLayer",
    "livechannels.routing.websocket_urlpatterns",
    "livechannels.rpc.rpc",
    "livechannels.serializers.registry",
    "livechannels.streams.arestart",
    "livechannels.streams.restart",
    "livechannels.testing.live_client",
    "livechannels.urls.urlpatterns",
]


@pytest.mark.parametrize("path", PUBLIC)
def test_every_public_path_imports(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name) is not None


def test_a_documented_name_that_moved_warns_with_its_new_place() -> None:
    from livechannels import codec, serializers

    with pytest.warns(DeprecationWarning, match=r"now livechannels\.serializers\.registry"):
        assert codec.registry is serializers.registry
