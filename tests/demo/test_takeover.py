"""What a viewer of the demo's other node sees when the node that leads the host metrics stops or dies."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from demo_project.dashboards.sources import FIRST
from tests.demo.running import RunningDemo

CHANNEL = "source/host/cpu"


class Viewer:
    """A browser's place at one node's live endpoint, watching one channel."""

    def __init__(self, demo: RunningDemo, number: int, stack: ExitStack) -> None:
        address = f"ws://127.0.0.1:{demo.ports[number]}/live/ws"
        self.socket: ClientConnection = stack.enter_context(connect(address, origin=demo.url(number, "")))
        self.socket.send('{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": {"channel": CHANNEL}}))
        self._lines = self._read()
        replies = [next(self._lines), next(self._lines)]
        assert [reply.get("id") for reply in replies] == [1, 2], replies
        assert "error" not in replies[0] and "error" not in replies[1], replies

    def _read(self) -> Iterator[dict[str, Any]]:
        """Replies and pushes; pings are answered."""
        while True:
            for line in str(self.socket.recv(timeout=10)).splitlines():
                if line == "{}":
                    self.socket.send("{}")
                else:
                    yield json.loads(line)

    def publication(self) -> dict[str, Any]:
        """The next one."""
        return next(pub for line in self._lines if (pub := line.get("push", {}).get("pub")))


@pytest.mark.fault
@pytest.mark.parametrize(("number", "within"), [(signal.SIGTERM, 0.5), (signal.SIGKILL, 3.5)])
def test_the_host_metrics_go_on_at_the_other_node(number: signal.Signals, within: float) -> None:
    with RunningDemo(nodes=2) as demo, ExitStack() as stack:
        leader = Viewer(demo, 0, stack).publication()["tags"]["leader"]
        leading = int(leader.removeprefix("node-"))
        viewer = Viewer(demo, 1 - leading, stack)
        before = viewer.publication()
        assert before["tags"]["leader"] == leader
        seen = [before["offset"]]
        demo.node(leading).send_signal(number)
        fault = time.monotonic()
        while (publication := viewer.publication())["tags"]["leader"] == leader:
            seen.append(publication["offset"])
        took = time.monotonic() - fault
        seen.append(publication["offset"])
        print(f"{number.name}: the other node's first publication after {took:.3f} s")
        assert FIRST <= took <= within
        assert seen == list(range(seen[0], seen[0] + len(seen))), "nothing twice, nothing skipped"
        assert publication["tags"]["run"] != before["tags"]["run"], "the page can show the gap"
