"""A web server with one stream that always runs: `daphne tests.faults.served:application`, configured by SERVED."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import django
from django.conf import settings

CONFIG = json.loads(os.environ["SERVED"])

settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "livechannels"],
    DATABASES={},
    ROOT_URLCONF="tests.faults.served",
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "livechannels.layer.LiveChannelLayer",
            "CONFIG": {"hosts": [CONFIG["url"]], "prefix": CONFIG["prefix"]},
        }
    },
    LIVECHANNELS={"CHANNELS": "tests.faults.served.live_channels", "LEASE_TTL": CONFIG["ttl"]},
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from livechannels import StreamSource, live_path  # noqa: E402
from livechannels.asgi import live_application  # noqa: E402
from livechannels.routing import websocket_urlpatterns  # noqa: E402


class Always(StreamSource):
    always = True

    async def run(self, stream: Any) -> None:
        number = 0
        while True:
            number += 1
            await stream.publish({"by": CONFIG["name"], "token": stream.token, "number": number})
            await asyncio.sleep(0.02)


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


live_channels = [live_path("source/0", Always)]
urlpatterns = [path("", hello)]
application = live_application(http=get_asgi_application(), websocket=websocket_urlpatterns)
