from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.sdk.settings"

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from livechannels.asgi import live_application
from livechannels.routing import websocket_urlpatterns

application = live_application(http=http, websocket=websocket_urlpatterns)
