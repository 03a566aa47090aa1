from __future__ import annotations

import gzip
import math
import random
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError

from ...conf import settings

TIMEOUT = 5.0


class Command(BaseCommand):
    help = "Pushes metrics of made-up hosts to a push URL, as Telegraf's outputs.http does. Ctrl-C ends it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000/live/push/telegraf")
        parser.add_argument("--token", help="push token; by default the first of LIVECHANNELS['PUSH_TOKENS']")
        parser.add_argument("--hosts", type=int, default=1, help="number of made-up hosts (default: 1)")
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between two pushes (default: 1)")
        parser.add_argument("--count", type=int, default=0, help="pushes before it ends (default: no end)")
        parser.add_argument("--gzip", action="store_true", help="compress the bodies")

    def handle(self, *args: Any, **options: Any) -> None:
        url = urlsplit(options["url"])
        if url.scheme not in ("http", "https") or not url.hostname:
            raise CommandError(
                f"{options['url']!r} is not an http:// or https:// URL, such as http://host/live/push/id."
            )
        if options["hosts"] < 1 or options["interval"] < 0 or options["count"] < 0:
            raise CommandError("--hosts is at least 1; --interval and --count are not negative.")
        token = options["token"] or next(iter(settings.PUSH_TOKENS), None)
        if not token:
            raise CommandError("There is no push token: give --token or set LIVECHANNELS['PUSH_TOKENS'].")
        connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = connect(url.hostname, url.port, timeout=TIMEOUT)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain; charset=utf-8"}
        if options["gzip"]:
            headers["Content-Encoding"] = "gzip"
        tally = Tally()
        try:
            for body in _bodies(options["hosts"], options["interval"], options["count"]):
                problem = _push(connection, url.path, gzip.compress(body) if options["gzip"] else body, headers)
                tally.add(body, problem)
                if problem:
                    self.stderr.write(problem)
        except KeyboardInterrupt:
            pass
        finally:
            connection.close()
        self.stdout.write(str(tally))
        if not tally.accepted:
            raise CommandError("No push was accepted.")


class Tally:
    """What was sent, and what became of it."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.accepted = self.refused = self.lines = 0

    def add(self, body: bytes, problem: str) -> None:
        if problem:
            self.refused += 1
        else:
            self.accepted += 1
            self.lines += body.count(b"\n")

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self.began, 0.001)
        return (
            f"{self.accepted} pushes accepted, {self.refused} refused; "
            f"{self.lines} lines in {seconds:.1f} s, {self.lines / seconds:.0f} lines/s"
        )


def _push(connection: HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> str:
    """Send one body; the problem in a line, or nothing."""
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        text = response.read()
    except (OSError, HTTPException) as error:
        connection.close()
        return f"{connection.host}:{connection.port}: {error or type(error).__name__}"
    if 200 <= response.status < 300:
        return ""
    return f"{response.status} {text.decode(errors='replace').partition(chr(10))[0]}"


def _bodies(hosts: int, interval: float, count: int) -> Iterator[bytes]:
    """Line protocol for all hosts, once per interval, `count` times or without end."""
    generators = [random.Random(number) for number in range(hosts)]  # noqa: S311 - made-up values
    began = time.monotonic()
    number = 0
    while not count or number < count:
        yield "".join(
            _lines(f"host-{index + 1}", time.time_ns(), generator) for index, generator in enumerate(generators)
        ).encode()
        number += 1
        if not count or number < count:
            time.sleep(max(0.0, began + number * interval - time.monotonic()))


def _lines(host: str, now: int, generator: random.Random) -> str:
    """One host's sample: CPU per core, memory and network, with a slow wave and some noise."""
    wave = 50 + 35 * math.sin(now / 1e9 / 20 + len(host) + ord(host[-1]))
    cores = "".join(
        f"cpu,host={host},cpu=cpu{core} usage_user={_noisy(generator, wave):.2f},"
        f"usage_system={_noisy(generator, wave / 4):.2f} {now}\n"
        for core in range(2)
    )
    used = _noisy(generator, 60)
    return (
        f"{cores}mem,host={host} used_percent={used:.2f},available_percent={100 - used:.2f} {now}\n"
        f"net,host={host},interface=eth0 bytes_recv={generator.randrange(10**6)}i,"
        f"bytes_sent={generator.randrange(10**5)}i {now}\n"
    )


def _noisy(generator: random.Random, value: float) -> float:
    return min(100.0, max(0.0, generator.gauss(value, 3)))
