"""The demo as a user starts it, for tests that talk to its nodes."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from tests.servers import Process, free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCHER = ROOT / "demo_project" / "run_demo.py"
TOKEN = "demo-push-token"
OWN_SETTINGS = ("NODES", "PORT", "ENGINE", "REDIS_URL", "NODE", "DEMO_PUSH_TOKEN", "SECRET_KEY", "MAKELEVEL")


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    while True:
        first = free_port()
        try:
            for port in range(first, first + count):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except (OSError, OverflowError):
            continue
        return first


class RunningDemo:
    """`run_demo.py` with a database and ports of its own. `start()` returns once every node is ready."""

    def __init__(self, nodes: int = 2, command: list[str] | None = None, **environment: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lc-demo-"))
        self.ports = list(range(first := free_ports(nodes), first + nodes))
        inherited = {key: value for key, value in os.environ.items() if key not in OWN_SETTINGS}
        self.environment = {
            **inherited,
            "NODES": str(nodes),
            "PORT": str(first),
            "DATABASE_PATH": str(self.directory / "demo.sqlite3"),
            "TMPDIR": str(self.directory),
            **environment,
        }
        self.process = Process(command or [sys.executable, str(LAUNCHER)], self.directory, "demo", self.environment)

    def start(self) -> RunningDemo:
        self.process.spawn()
        wait_until(self._all_ready, "Ready lines", 60)
        return self

    def _all_ready(self) -> bool:
        if not self.process.alive:
            raise RuntimeError(f"the demo ended:\n{self.output}")
        return sorted(self.ready_urls()) == sorted(self.url(number) for number in range(len(self.ports)))

    def ready_urls(self) -> list[str]:
        return re.findall(r"^Ready: (\S+)$", self.output, re.MULTILINE)

    @property
    def output(self) -> str:
        return self.process.output()

    def url(self, number: int, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.ports[number]}{path}"

    def family(self) -> list[psutil.Process]:
        """Every process the launcher has started and that lives."""
        return [child for child in psutil.Process(self.process.pid).children(recursive=True) if is_alive(child)]

    def node(self, number: int) -> psutil.Process:
        """The daphne that listens on the node's port."""
        port = str(self.ports[number])
        return next(child for child in self.family() if "daphne" in child.cmdline() and port in child.cmdline())

    def push(self, number: int, lines: str, stream: str = "demo") -> int:
        """Push line protocol to a node; returns the status."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(self.url(number, f"/live/push/{stream}"), lines.encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)

    def stop(self) -> None:
        self.process.terminate()

    def __enter__(self) -> RunningDemo:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class Visitor:
    """A person without a browser: keeps cookies, sends forms and JSON."""

    def __init__(self, demo: RunningDemo, number: int = 0) -> None:
        self.demo, self.number = demo, number
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        self.get("/")

    def get(self, path: str, accept: str = "text/html") -> tuple[int, str]:
        return self._send(urllib.request.Request(self.demo.url(self.number, path), headers={"Accept": accept}))

    def sign_in(self, name: str) -> None:
        url = self.demo.url(self.number, "/user")
        body = f"user={name}&csrfmiddlewaretoken={self._csrf()}".encode()
        status, text = self._send(urllib.request.Request(url, body))
        assert status == 200, text

    def send(self, method: str, path: str, body: Any, token: str | None = None) -> tuple[int, Any]:
        """JSON there and back; `token` in place of the right one."""
        headers = {
            "X-CSRFToken": self._csrf() if token is None else token,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.demo.url(self.number, path), raw, headers, method=method)
        status, text = self._send(request)
        return status, json.loads(text) if text.startswith("{") else text

    def _csrf(self) -> str:
        return next((str(cookie.value) for cookie in self.cookies if cookie.name == "csrftoken"), "")

    def _send(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with self.opener.open(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
