"""Settings of the live server test: a database file, and the layer over a real server."""

from __future__ import annotations

import os

SECRET_KEY = "live server test"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["daphne", "django.contrib.contenttypes", "django.contrib.auth", "livechannels"]
DATABASE = os.environ["TEST_DATABASE"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE, "TEST": {"NAME": DATABASE + ".test"}}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
ROOT_URLCONF = "tests.layer.live_settings"
ASGI_APPLICATION = "tests.layer.live_server_case.application"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "livechannels.layer.LiveChannelLayer",
        "CONFIG": {"hosts": [os.environ["TEST_REDIS_URL"]], "prefix": os.environ["TEST_PREFIX"]},
    }
}
urlpatterns: list[object] = []
