from __future__ import annotations

from django.test import override_settings

from livechannels.conf import DEFAULT_LIMITS, settings


def test_defaults() -> None:
    with override_settings(LIVECHANNELS={}):
        assert settings.LAYER == "default"
        assert settings.LEASE_TTL == 3
        assert list(settings.PUSH_TOKENS) == []
        assert settings.ALLOWED_ORIGINS is None
        assert sorted(settings.LIMITS.items()) == sorted(DEFAULT_LIMITS.items())


def test_values_are_read_when_they_are_used() -> None:
    with override_settings(LIVECHANNELS={"LAYER": "live", "LEASE_TTL": 5}):
        assert settings.LAYER == "live"
        assert settings.LEASE_TTL == 5
    assert settings.LAYER == "default"


def test_limits_are_merged_with_the_defaults() -> None:
    with override_settings(LIVECHANNELS={"LIMITS": {"message_size": 10}}):
        assert settings.LIMITS["message_size"] == 10
        assert settings.LIMITS["channels_per_client"] == 128


def test_without_the_setting_everything_has_its_default() -> None:
    with override_settings():
        from django.conf import settings as django_settings

        del django_settings.LIVECHANNELS
        assert settings.LAYER == "default"
