from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand

from ... import streams


class Command(BaseCommand):
    help = "Runs the stream sources without a web server, as one more node; SIGTERM or Ctrl-C ends it."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(streams.run_forever())
        except KeyboardInterrupt:
            pass
