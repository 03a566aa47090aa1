"""Settings of the demo; everything that differs between nodes or runs comes from the environment.

REDIS_URL        the Redis or Valkey server all nodes share; HA_ENGINE_ADDRESS ("host:port" or a URL) says the same
ENGINE           "redis" or "memory", also as HA_ENGINE; without it redis if there is an address, else memory
NODE             this node's name in the footer ("node-0")
NODE_PORTS       ports of all nodes, comma separated, for the link to the other node
DEMO_PUSH_TOKEN  the token Telegraf or curl pushes with
DATABASE_PATH    where the SQLite file lies
SECRET_KEY       shared by all nodes so that a session counts on each; made anew for each run if it is missing
ALLOWED_HOSTS    further host names, comma separated
"""

from __future__ import annotations

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

PROJECT = Path(__file__).resolve().parent.parent


def from_environment(name: str, default: str = "") -> str:
    return os.environ.get(name) or default


def listed(name: str) -> list[str]:
    return [word.strip() for word in from_environment(name).split(",") if word.strip()]


DEBUG = False
SECRET_KEY = from_environment("SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *listed("ALLOWED_HOSTS")]

NODE = from_environment("NODE", "node-0")
NODE_PORTS = [int(port) for port in listed("NODE_PORTS")]
PUSH_TOKEN = from_environment("DEMO_PUSH_TOKEN", "demo-push-token")
REDIS_URL = from_environment("REDIS_URL", from_environment("HA_ENGINE_ADDRESS"))
ENGINE = from_environment("ENGINE", from_environment("HA_ENGINE", "redis" if REDIS_URL else "memory"))

INSTALLED_APPS = [
    "daphne",
    "livechannels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "dashboards",  # after auth: what it seeds needs the permissions auth makes
]

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "livechannels.layer.LiveChannelLayer",
        "CONFIG": {"ha_engine": ENGINE, "ha_engine_address": REDIS_URL},
    }
}
LIVECHANNELS = {"CHANNELS": "demo.live.live_channels", "PUSH_TOKENS": [PUSH_TOKEN]}
# A demo on one's own machine: the memory engine is asked for by name, and everybody may know the token.
SILENCED_SYSTEM_CHECKS = ["livechannels.W001", "livechannels.W003"]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "livechannels.dashboards.ActingUserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "demo.urls"
ASGI_APPLICATION = "demo.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": from_environment("DATABASE_PATH", str(PROJECT / "db.sqlite3")),
        # Several nodes share the file: readers must not wait for a writer, and writers queue instead of failing.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 10, "init_command": "PRAGMA journal_mode=WAL"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
STATIC_ROOT = PROJECT / "collected"
# Served by the node itself, straight from the apps: daphne does not serve static files, and nothing is collected here.
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_MAX_AGE = 0

USE_TZ = True
TIME_ZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"node": {"format": f"{NODE} %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "node"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"livechannels": {"level": "INFO"}},
}
