from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import status
from ...exceptions import LiveChannelsError


class Command(BaseCommand):
    help = "Shows the cluster: nodes, backend streams and their leaders, live channels."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = status.gather_sync()
        except LiveChannelsError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
            return
        engine = " ".join(f"{name}={value}" for name, value in found["engine"].items())
        self.stdout.write(f"engine: {engine}")
        for title in ("nodes", "streams", "channels"):
            self._table(title, found[title])

    def _table(self, title: str, rows: list[dict[str, Any]]) -> None:
        self.stdout.write(f"\n{title}: {len(rows)}")
        if not rows:
            return
        texts = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
        widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
        for line in texts:
            cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            self.stdout.write(f"  {'  '.join(cells).rstrip()}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
