"""F4 under the servers people use: SIGTERM to daphne or uvicorn hands its streams over before its sockets close."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from livechannels.engines.base import LeaseGet, Read
from livechannels.layer import LiveChannelLayer
from livechannels.messages import topics
from tests.faults.leaders import ROOT, count_stale
from tests.servers import Process, free_port, wait_until

COMMANDS = {
    "daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", "{port}"],
    "uvicorn": ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}"],
}


class Served:
    """One server process that has answered a request."""

    def __init__(self, server: str, name: str, directory: Path, config: dict[str, Any]) -> None:
        self.port = free_port()
        command = [part.format(port=self.port) for part in COMMANDS[server]]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SERVED": json.dumps({**config, "name": name})}
        env.pop("DJANGO_SETTINGS_MODULE", None)
        self.process = Process([sys.executable, *command, "tests.faults.served:application"], directory, name, env)
        self.process.spawn()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        wait_until(self._answers, f"{server} answers")

    def _answers(self) -> bool:
        self.connection.close()
        self.connection.request("GET", "/")
        return self.connection.getresponse().read() == b"hello"


@pytest.fixture(params=sorted(COMMANDS))
def servers(request: pytest.FixtureRequest, redis_url: str, prefix: str, tmp_path: Path) -> Iterator[list[Served]]:
    config = {"url": redis_url, "prefix": prefix, "ttl": 10}
    started = [Served(request.param, f"node{number}", tmp_path, config) for number in range(2)]
    yield started
    for one in started:
        one.connection.close()
        one.process.kill()


@pytest.mark.fault
def test_f4_a_stopped_server_hands_over_at_once(servers, redis_url, prefix):
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)
    topic = topics.live("source/0")

    def published() -> list[dict[str, Any]]:
        entries = layer.run_sync(Read(topic)).entries
        return [{"at": entry.time, **json.loads(entry.body)["data"]} for entry in entries]

    grant = wait_until(lambda: layer.run_sync(LeaseGet(topic)), "a leader")
    wait_until(published, "a publication")
    leading = next(one for one in servers if f"-{one.process.pid}-" in grant.holder)
    time.sleep(0.5)
    leading.process.send_signal(signal.SIGTERM)
    wait_until(lambda: len({said["by"] for said in published()}) == 2, "the other publishes", 5)
    said = published()
    last, first = next((a, b) for a, b in pairwise(said) if a["by"] != b["by"])
    assert first["at"] - last["at"] <= 500
    assert first["token"] > last["token"]
    assert count_stale(said) == 0
    wait_until(lambda: not leading.process.alive, "the end of the server", 15)
