"""Settings of the servers that the SDK scenarios run against; the test says the rest in the environment."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403

ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "tests.sdk.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SDK_DATABASE", ":memory:"),
        "OPTIONS": {"timeout": 20},
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "livechannels.layer.LiveChannelLayer",
        "CONFIG": json.loads(os.environ.get("SDK_LAYER", '{"ha_engine": "memory"}')),
    }
}
LIVECHANNELS = {"CHANNELS": "tests.sdk.live.live_channels", "LIMITS": json.loads(os.environ.get("SDK_LIMITS", "{}"))}
