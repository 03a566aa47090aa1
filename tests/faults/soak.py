"""Random faults for as long as you like: `python -m tests.faults.soak --minutes 10 --topology sentinel --seed 7`.

Topologies: single, sentinel, haproxy (in front of sentinel's servers, with the documented configuration), cluster.
Nodes publish, follow, come and go all the while; the judge reads everything at the end. Prints the seed first and a
report last; ends with 1 if a promise was broken, and then keeps the logs.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

from tests.faults.history import Report
from tests.faults.nodes import Nodes
from tests.faults.proxy import FaultProxy
from tests.servers import RedisServer, wait_until
from tests.topologies import Cluster, HAProxy, SentinelSet

TOPOLOGIES = ("single", "sentinel", "haproxy", "cluster")


class Nemesis:
    """Faults that every topology knows; subclasses start the servers and add their own."""

    PATIENCE = 30.0

    def __init__(self, binary: str, dice: random.Random, stack: contextlib.ExitStack, directory: Path) -> None:
        self.dice, self.stack = dice, stack
        self.servers: list[RedisServer] = []
        self.proxies: list[FaultProxy] = []
        hosts, direct = self.start(binary)
        self.nodes = stack.enter_context(
            Nodes(directory, hosts, direct=direct, viewers=3, away=2, seed=dice.randrange(2**31))
        )
        self.kinds: dict[str, Callable[[], None]] = {
            name.removeprefix("fault_"): getattr(self, name) for name in dir(self) if name.startswith("fault_")
        }

    def start(self, binary: str) -> tuple[list[str], str]:
        """Start the servers; the URLs of the nodes, and the judge's own."""
        raise NotImplementedError

    def strike(self) -> str:
        """One fault, until publications flow again."""
        kind = self.dice.choice(sorted(self.kinds))
        self.nodes.fault(kind)
        self.kinds[kind]()
        for server in self.servers:
            server.thaw()
        for proxy in self.proxies:
            proxy.heal()
            proxy.delay(0)
        self.nodes.wait_for_progress(5, self.PATIENCE)
        time.sleep(self.dice.uniform(0, 0.5))
        return kind

    def server(self) -> RedisServer:
        return self.dice.choice([server for server in self.servers if server.process.alive])

    # Faults of any topology

    def fault_connections_killed(self) -> None:
        for _ in range(self.dice.randint(1, 4)):
            with contextlib.suppress(redis.RedisError):
                self.server().kill_connections(self.dice.choice(("pubsub", "normal")))
            time.sleep(self.dice.uniform(0, 0.2))

    def fault_server_frozen(self) -> None:
        server = self.server()
        server.freeze()
        time.sleep(self.dice.uniform(0.1, 3.5))
        server.thaw()

    def fault_node_frozen(self) -> None:
        node = self.dice.choice(self.nodes.nodes)
        node.freeze()
        time.sleep(self.dice.uniform(0.2, 4))
        node.thaw()

    def fault_node_killed(self) -> None:
        self.nodes.replace(self.dice.choice(self.nodes.nodes))

    def fault_scripts_flushed(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self.server().command("SCRIPT", "FLUSH")

    def fault_writes_paused(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self.server().command("CLIENT", "PAUSE", self.dice.randint(200, 2500), self.dice.choice(("WRITE", "ALL")))


class PathNemesis(Nemesis):
    """Each node has a way of its own to the store."""

    def ways_to(self, port: int) -> list[str]:
        self.proxies = [self.stack.enter_context(FaultProxy(port)) for _ in range(2)]
        return [proxy.url for proxy in self.proxies]

    def fault_path_reset(self) -> None:
        for _ in range(self.dice.randint(1, 3)):
            self.dice.choice(self.proxies).reset()
            time.sleep(self.dice.uniform(0, 0.3))

    def fault_path_stalled(self) -> None:
        directions = self.dice.choice((("up", "down"), ("up",), ("down",)))
        self.dice.choice(self.proxies).stall(*directions)
        time.sleep(self.dice.uniform(0.2, 5))

    def fault_path_slow(self) -> None:
        self.dice.choice(self.proxies).delay(self.dice.uniform(0.01, 0.3))
        time.sleep(self.dice.uniform(0.5, 3))


class Single(PathNemesis):
    def start(self, binary: str) -> tuple[list[str], str]:
        self.servers = [self.stack.enter_context(RedisServer(binary))]
        return self.ways_to(self.servers[0].port), self.servers[0].url

    def _restart(self) -> None:
        self.nodes.server_gone()
        self.servers[0].kill()
        time.sleep(self.dice.uniform(0, 1.5))
        self.servers[0].start()

    def fault_restart_empty(self) -> None:
        self.servers[0].wipe()
        self._restart()

    def fault_restart_with_everything(self) -> None:
        self.servers[0].command("SAVE")
        self._restart()

    def fault_restart_from_an_old_snapshot(self) -> None:
        self.servers[0].command("SAVE")
        time.sleep(self.dice.uniform(0.2, 2))
        self._restart()

    def fault_read_only(self) -> None:
        self.servers[0].command("REPLICAOF", "127.0.0.1", "1")
        time.sleep(self.dice.uniform(0.1, 2))
        self.servers[0].command("REPLICAOF", "NO", "ONE")


class Sentinel(Nemesis):
    PATIENCE = 60.0

    def start(self, binary: str) -> tuple[list[str], str]:
        self.group = self.stack.enter_context(SentinelSet(binary))
        self.servers = [self.group.master, self.group.replica]
        return [self.group.url], self.group.url

    def fault_master_killed(self) -> None:
        """A failover; the old master comes back as a replica."""
        master = self.group.current_master()
        other = next(server for server in self.servers if server is not master)
        self.nodes.server_gone()
        master.kill()
        wait_until(lambda: self.group.master_port() == other.port, "the failover", 60)
        self.nodes.wait_for_progress(5, self.PATIENCE)
        master.start()
        self._wait_for_replica(master, other)

    def fault_master_frozen(self) -> None:
        """Long enough for a failover; then the stale master wakes."""
        master = self.group.current_master()
        other = next(server for server in self.servers if server is not master)
        self.nodes.server_gone()
        master.freeze()
        wait_until(lambda: self.group.master_port() == other.port, "the failover", 60)
        self.nodes.wait_for_progress(5, self.PATIENCE)
        master.thaw()
        self._wait_for_replica(master, other)

    def fault_server_frozen(self) -> None:
        server = self.server()
        server.freeze()
        time.sleep(self.dice.uniform(0.1, 0.8))
        server.thaw()

    def fault_writes_paused(self) -> None:
        """Not here: a paused server looks dead to the sentinels, and that is another fault."""
        self.fault_scripts_flushed()

    def _wait_for_replica(self, replica: RedisServer, master: RedisServer) -> None:
        # A sentinel that was held up does nothing for half a minute.
        wait_until(lambda: replica.info("replication")["role"] == "slave", "the demotion", 150)
        wait_until(lambda: master.info("replication").get("slave0", {}).get("state") == "online", "its replica", 60)
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica's link", 60)
        time.sleep(1.5)  # the sentinels look every second, and promote only what they have seen in order


class BehindHAProxy(PathNemesis, Sentinel):
    PATIENCE = 120.0

    def start(self, binary: str) -> tuple[list[str], str]:
        _, url = Sentinel.start(self, binary)
        haproxy = self.stack.enter_context(HAProxy(self.group.master.port, self.group.replica.port))
        return self.ways_to(haproxy.port), url


class OnCluster(Nemesis):
    PATIENCE = 60.0

    def start(self, binary: str) -> tuple[list[str], str]:
        self.cluster = self.stack.enter_context(Cluster(binary))
        self.servers = self.cluster.nodes
        return [self.cluster.url], self.cluster.url

    def fault_cluster_node_restarted(self) -> None:
        server = self.server()
        server.command("SAVE")
        self.nodes.server_gone()
        server.kill()
        time.sleep(self.dice.uniform(0.1, 3))
        server.start()

    def fault_slot_moved(self) -> None:
        self.nodes.wait_for_progress(5, self.PATIENCE)
        self.cluster.move_slot_of(self.dice.choice(self.nodes.channels))


NEMESES: dict[str, type[Nemesis]] = dict(zip(TOPOLOGIES, (Single, Sentinel, BehindHAProxy, OnCluster), strict=True))


def soak(topology: str, seconds: float, seed: int, directory: Path, binary: str = "valkey") -> Report:
    """Faults for so long, then the judgement."""
    with contextlib.ExitStack() as stack:
        nemesis = NEMESES[topology](binary, random.Random(seed), stack, directory)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            nemesis.strike()
        return nemesis.nodes.settle(patience=40)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="single")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--server", default="valkey", help="redis, valkey, redis-8 or redis-6.2")
    words = parser.parse_args()
    print(f"soak: {words.topology} on {words.server}, {words.minutes:g} minutes, seed {words.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="lc-soak-"))
    began = time.monotonic()
    report = soak(words.topology, words.minutes * 60, words.seed, directory, words.server)
    print(report)
    print(f"took {time.monotonic() - began:.0f} s, seed {words.seed}")
    if report.violations:
        print(f"logs kept in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
