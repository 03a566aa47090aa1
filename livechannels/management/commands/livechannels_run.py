from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...exceptions import ConfigurationError
from ...layer import live_layer
from ...streams import supervisor as streams


class Command(BaseCommand):
    help = "Runs the stream sources without a web server, as one more node. Ctrl-C or SIGTERM ends it."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(self._run())
        except ConfigurationError as error:
            raise CommandError(str(error)) from error

    async def _run(self) -> None:
        running = asyncio.ensure_future(streams.run_forever())
        await asyncio.sleep(0)  # it starts the node in its first step
        if not running.done():
            self.stdout.write(f"Running as node {live_layer().node().id}; Ctrl-C ends it.")
        await running
