from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...exceptions import LiveChannelsError
from ...layer import live_layer

PLACEHOLDER = "<password>"


class Command(BaseCommand):
    help = "Prints the Redis ACL user with the least rights this layer needs. It connects to nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--layer", help="alias in CHANNEL_LAYERS (default: LIVECHANNELS['LAYER'])")
        parser.add_argument("--user", default="livechannels", help="name of the Redis user (default: livechannels)")
        parser.add_argument(
            "--file", action="store_true", help="as lines of an aclfile instead of commands for redis-cli"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            layer = live_layer(options["layer"])
        except LiveChannelsError as error:
            raise CommandError(str(error)) from error
        if layer.options.engine != "redis":
            raise CommandError(f"The layer uses the {layer.options.engine} engine, which has no users.")
        from ...engines.redis import keys

        start = "user" if options["file"] else "ACL SETUSER"
        for endpoint in layer.options.hosts:
            rules = keys.rules(endpoint, layer.options.prefix)
            self.stderr.write(f"# for {endpoint}; replace {PLACEHOLDER}")
            self.stdout.write(" ".join([start, options["user"], *rules[:2], f">{PLACEHOLDER}", *rules[2:]]))
