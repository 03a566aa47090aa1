from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import api
from ...exceptions import LiveChannelsError


class Command(BaseCommand):
    help = "Publishes one message on a live channel."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("channel", help='live channel, such as "broadcast/news"')
        parser.add_argument("json", help='the data as JSON, or "-" to read it from standard input')
        parser.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
        parser.add_argument("--idempotency-key", help="a repeat with the same key within five minutes is not sent")

    def handle(self, *args: Any, **options: Any) -> None:
        text = sys.stdin.read() if options["json"] == "-" else options["json"]
        try:
            data = json.loads(text)
        except ValueError as error:
            raise CommandError(f"The data is not JSON: {error}. A text needs quotes of its own: '\"hello\"'.") from None
        try:
            position = api.publish(
                options["channel"], data, tags=_tags(options["tag"]), idempotency_key=options["idempotency_key"]
            )
        except LiveChannelsError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{position.epoch}:{position.offset}" if position else "published")


def _tags(given: list[str]) -> dict[str, str] | None:
    for tag in given:
        if "=" not in tag:
            raise CommandError(f"--tag {tag!r} is not NAME=VALUE.")
    return dict(tag.split("=", 1) for tag in given) or None
