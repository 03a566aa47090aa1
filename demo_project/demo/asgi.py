"""The ASGI application of a node: Django, the live channels, and one plain consumer beside them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
http = get_asgi_application()

from dashboards.consumers import PlainConsumer
from dashboards.models import Dashboard
from django.core.management import call_command
from django.db import connection
from django.urls import path

from livechannels.asgi import live_application
from livechannels.routing import websocket_urlpatterns


def prepare_database() -> None:
    """Makes the tables if there are none, so that `daphne demo.asgi:application` is all one has to type."""
    if Dashboard._meta.db_table not in connection.introspection.table_names():
        call_command("migrate", verbosity=0)
    connection.close()


# In a thread, because some servers import this inside their loop.
with ThreadPoolExecutor(1) as thread:
    thread.submit(prepare_database).result()

application = live_application(http=http, websocket=[*websocket_urlpatterns, path("plain/ws", PlainConsumer.as_asgi())])
