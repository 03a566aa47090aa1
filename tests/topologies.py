"""Several servers that belong together: Sentinel, HAProxy in front, Cluster. Each is a context manager with a `url`."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import NotInstalled, Process, RedisServer, free_port, wait_until

HAPROXY_CONFIG = Path(__file__).parent.parent / "docs" / "howto" / "haproxy.cfg"


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

    OPTIONS = (
        "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-config-file", "nodes.conf",
        "--cluster-require-full-coverage", "no", "--cluster-port",
    )  # fmt: skip

    def __init__(self, binary: str = "redis", size: int = 3) -> None:
        self.nodes = [RedisServer(binary, *self.OPTIONS, str(free_port())) for _ in range(size)]

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

    def move_slot_of(self, name: str) -> None:
        """Hand the slot of the first key that contains `name` to the next node, as redis-cli --cluster reshard does."""
        wait_until(lambda: all(self._complete(node) for node in self.nodes), "cluster state ok", 30)
        key = next(key for node in self.nodes for key in node.command("KEYS", "*") if name in key)
        slot = self.nodes[0].command("CLUSTER", "KEYSLOT", key)
        source = next(node for node in self.nodes if node.command("CLUSTER", "COUNTKEYSINSLOT", slot))
        target = self.nodes[(self.nodes.index(source) + 1) % len(self.nodes)]
        names = {node: node.command("CLUSTER", "MYID") for node in self.nodes}
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.nodes):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", names[target])

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
