from __future__ import annotations

import logging

import pytest
from django.apps import apps
from django.contrib.auth.signals import user_logged_out
from django.core.checks.registry import registry as checks
from django.test import override_settings

from livechannels import registry
from livechannels.layer import LiveChannelLayer, startup_hooks
from livechannels.streams import supervisor as streams


def test_the_layer_knows_the_policies_and_nodes_run_streams() -> None:
    assert LiveChannelLayer.policies is registry.policy_for
    assert startup_hooks.count(streams.attach) == 1
    assert {"check_layers", "check_settings", "check_channels"} <= {
        check.__name__ for check in checks.registered_checks
    }


def test_ready_twice_changes_nothing() -> None:
    receivers = len(user_logged_out.receivers)
    apps.get_app_config("livechannels").ready()
    assert startup_hooks.count(streams.attach) == 1
    assert len(user_logged_out.receivers) == receivers


def test_channels_that_cannot_be_loaded_are_logged_and_do_not_stop_django(caplog: pytest.LogCaptureFixture) -> None:
    broken = override_settings(LIVECHANNELS={"CHANNELS": "tests.broken_live.live_channels"})
    with broken, caplog.at_level(logging.ERROR, "livechannels"):
        apps.get_app_config("livechannels").ready()
    assert "division by zero" in caplog.text
    assert "manage.py check" in caplog.text
