"""Faults of one server: killed and back with everything, with old data or with nothing; full; busy; read-only."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest
import redis

from livechannels.engines.redis.operations import Operations
from tests.conftest import SERVER
from tests.faults.nodes import Nodes
from tests.servers import RedisServer, wait_until


def restarted(nodes, server, kind):
    """Kill it under load and start it again with what it has kept."""
    nodes.server_gone()
    server.kill()
    nodes.fault(kind)
    time.sleep(0.3)
    server.start()
    nodes.wait_for_progress(20)


def test_f9_restart_empty(server, tmp_path):
    with Nodes(tmp_path, [server.url], viewers=2, away=1) as nodes:
        nodes.wait_for_progress(20)
        restarted(nodes, server, "restart empty")
        report = nodes.settle()
    assert report.violations == []
    assert report.resets >= 1
    assert report.acknowledged_lost > 0
    assert report.gaps >= 1


def test_f9_restart_with_everything(stack, tmp_path):
    server = stack.enter_context(RedisServer(SERVER, "--appendonly", "yes", "--appendfsync", "always"))
    with Nodes(tmp_path, [server.url], viewers=2, away=1) as nodes:
        nodes.wait_for_progress(20)
        restarted(nodes, server, "restart from AOF")
        report = nodes.settle(lossless=True)
    assert report.violations == []
    assert report.resets == 0, "nothing was lost, so nobody may be reset"


def test_f9_restart_from_an_old_snapshot(server, tmp_path):
    with Nodes(tmp_path, [server.url], viewers=3, away=1) as nodes:
        nodes.wait_for_progress(10)
        server.command("SAVE")
        nodes.wait_for_progress(40)
        restarted(nodes, server, "restart from an old snapshot")
        report = nodes.settle()
    assert report.violations == []
    assert report.acknowledged_lost > 0


def rewound_while_viewers_are_away(nodes, server):
    """All viewers leave; the server goes back to an old snapshot and past where it was; they return."""
    nodes.wait_for_progress(10)
    server.command("SAVE")
    nodes.wait_for_progress(40)
    nodes.send_all(signal.SIGUSR2)
    wait_until(lambda: all(len(node.events("left")) >= 4 for node in nodes.nodes), "viewers that leave")
    before = {channel: kept.top for channel, kept in nodes.surviving().items()}
    nodes.server_gone()
    server.kill()
    nodes.fault("rewind")
    server.start()
    nodes.wait(lambda: _past(nodes, before), "offsets beyond where they were", 40)
    nodes.send_all(signal.SIGUSR2)
    nodes.wait_for_progress(10)


def _past(nodes, before):
    with contextlib.suppress(ConnectionError):
        return all(kept.top > before[channel] + 10 for channel, kept in nodes.surviving().items())
    return False


def test_f9_a_rewind_while_nobody_looked(server, tmp_path):
    with Nodes(tmp_path, [server.url], viewers=2) as nodes:
        rewound_while_viewers_are_away(nodes, server)
        report = nodes.settle()
    assert report.violations == []
    assert report.resets >= 1


def test_f9_is_caught_with_the_epoch_rule_off(server, tmp_path, monkeypatch):
    # The judge looks at the store with the same broken build, or its look would begin the new epoch.
    monkeypatch.setattr(
        Operations, "compare_replids", property(lambda self: False, lambda self, value: None), raising=False
    )
    with Nodes(tmp_path, [server.url], viewers=2, broken=["epoch rule"]) as nodes:
        rewound_while_viewers_are_away(nodes, server)
        report = nodes.settle(patience=2)
    assert report.violations, f"the broken build was not found out: {report}"


@pytest.mark.fault
def test_f9_again_and_again(server, tmp_path):
    with Nodes(tmp_path, [server.url], viewers=3, away=1, count=3) as nodes:
        for round_ in range(5):
            nodes.wait_for_progress(10)
            if round_ % 2:
                server.command("SAVE")
                nodes.wait_for_progress(10)
            restarted(nodes, server, "restart")
        report = nodes.settle()
    assert report.violations == []


@pytest.mark.fault
def test_f16_out_of_memory(server, tmp_path):
    with Nodes(tmp_path, [server.url], viewers=2) as nodes:
        nodes.wait_for_progress(20)
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "100kb")
        nodes.fault("out of memory")
        wait_until(lambda: nodes.nodes[0].events("refused"), "a refused publish")
        time.sleep(1)
        server.command("CONFIG", "SET", "maxmemory", "0")
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []
    assert "memory" in nodes.nodes[0].events("refused")[0]["why"]


@pytest.mark.fault
def test_f16_read_only(server, tmp_path):
    """A master that is told to follow a dead one and back: demoted, then promoted, nothing lost."""
    with Nodes(tmp_path, [server.url], viewers=2) as nodes:
        for _ in range(2):
            nodes.wait_for_progress(20)
            server.command("REPLICAOF", "127.0.0.1", "1")
            nodes.fault("read-only")
            time.sleep(1.5)
            server.command("REPLICAOF", "NO", "ONE")
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []
    assert report.resets == 0


@pytest.mark.fault
def test_f16_scripts_flushed_and_a_busy_script(server, tmp_path):
    with Nodes(tmp_path, [server.url], viewers=2) as nodes:
        for _ in range(5):
            nodes.wait_for_progress(10)
            server.command("SCRIPT", "FLUSH")
            nodes.fault("script flush")
        with contextlib.suppress(redis.RedisError):
            server.command("EVAL", "local n = 0 while n < 3e8 do n = n + 1 end return n", 0)
        nodes.fault("busy script")
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []


@pytest.mark.fault
def test_f16_loading(stack, tmp_path):
    """A server that comes back answers LOADING for a while."""
    server = stack.enter_context(RedisServer(SERVER, "--key-load-delay", "20000", "--enable-debug-command", "yes"))
    with Nodes(tmp_path, [server.url], viewers=2) as nodes:
        nodes.wait_for_progress(10)
        server.command("DEBUG", "POPULATE", 100)
        server.command("SAVE")
        nodes.server_gone()
        server.kill()
        nodes.fault("loading")
        server.process.spawn()
        nodes.wait_for_progress(20)
        report = nodes.settle()
    assert report.violations == []


@pytest.mark.fault
def test_f17_a_node_that_stops_reading_is_cut_and_recovers(server, tmp_path):
    server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 32kb 1")
    with Nodes(tmp_path, [server.url], viewers=2, count=3, period=0.005) as nodes:
        nodes.wait_for_progress(20)
        stopped, *others = nodes.nodes
        stopped.freeze()
        nodes.fault("node frozen")
        before = [len(node.events("seen")) for node in others]
        time.sleep(5)
        grown = [len(node.events("seen")) - then for node, then in zip(others, before, strict=True)]
        stopped.thaw()
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []
    assert all(count > 200 for count in grown), "the others went on"


def answers(nodes):
    """What those who asked for what they missed were told so far: `recovered` or not."""
    returned = [event for node in nodes.nodes for event in node.events("subscribed") if event["since"]]
    return {event["recovered"] for event in returned}


@pytest.mark.fault
def test_f19_a_history_that_is_too_short(server, tmp_path):
    """Twenty entries are kept, half a second's worth; viewers stay away for up to a second and a half."""
    with Nodes(tmp_path, [server.url], viewers=4, channels=["short/1"], away=3, period=0.05) as nodes:
        for _ in range(4):
            nodes.wait_for_progress(100)
            server.kill_connections("pubsub")
            nodes.fault("reset")
        nodes.wait(lambda: {True, False} <= answers(nodes), "viewers that came back in time, and too late", 60)
        report = nodes.settle()
    assert report.violations == []
    assert report.resets >= 1
    assert report.recovered >= 1


@pytest.mark.fault
def test_f19_is_caught_with_recovery_off(server, tmp_path):
    with Nodes(
        tmp_path, [server.url], viewers=3, channels=["short/1"], away=1.5, period=0.05, broken=["recovery"]
    ) as nodes:
        nodes.wait_for_progress(150)
        report = nodes.settle(patience=2)
    assert report.violations
