"""Faults of the path to Redis: resets, black holes, a detached subscription, pauses. The server loses nothing."""

from __future__ import annotations

import time

import pytest

from tests.faults.nodes import Nodes
from tests.servers import RedisServer, wait_until

NOTICED_WITHIN = 3.0
LENIENCE = 1.0


def through(proxies, tmp_path, server, **config):
    return Nodes(tmp_path, [proxy.url for proxy in proxies], direct=server.url, viewers=2, away=2, **config)


def reset_again_and_again(nodes, proxies, server):
    for round_ in range(4):
        nodes.wait_for_progress(20)
        if round_ % 2:
            assert server.kill_connections("pubsub")
        else:
            assert proxies[round_ // 2].reset()
        nodes.fault("reset")
    nodes.wait_for_progress(20)


def test_f1_resets(proxies, server, tmp_path):
    with through(proxies, tmp_path, server) as nodes:
        reset_again_and_again(nodes, proxies, server)
        report = nodes.settle(lossless=True)
    assert report.violations == []
    assert report.faults["reset"] >= 1


def test_f1_is_caught_with_recovery_off(proxies, server, tmp_path):
    """A build that skips what was published while nobody listened and says that all is well must be found out."""
    with through(proxies, tmp_path, server, broken=["recovery"]) as nodes:
        proxies[1].blackhole()
        time.sleep(0.5)
        proxies[1].reset()
        proxies[1].heal()
        nodes.wait_for_progress(20)
        report = nodes.settle(patience=2)
    assert any("silently lost" in violation or "lacks" in violation for violation in report.violations), report


@pytest.mark.fault
@pytest.mark.parametrize("directions", [("up", "down"), ("down",), ("up",)], ids="+".join)
def test_f2_a_black_hole(proxies, server, tmp_path, directions):
    with through(proxies, tmp_path, server) as nodes:
        nodes.wait_for_progress(20)
        connected = proxies[0].accepted
        began = time.monotonic()
        proxies[0].stall(*directions)
        nodes.fault("blackhole")
        wait_until(lambda: proxies[0].accepted > connected, "noticing the dead path", 10)
        noticed = time.monotonic() - began
        time.sleep(1)
        proxies[0].heal()
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []
    assert noticed < NOTICED_WITHIN + LENIENCE


@pytest.mark.fault
def test_f2_silence_without_a_cut(proxies, server, tmp_path):
    """Everything stalls for four seconds and then arrives late: what comes twice is dropped, what is missing read."""
    with through(proxies, tmp_path, server) as nodes:
        nodes.wait_for_progress(20)
        for proxy in proxies:
            proxy.blackhole()
        nodes.fault("blackhole")
        time.sleep(4)
        for proxy in proxies:
            proxy.heal()
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []


@pytest.mark.fault
def test_f2_a_slow_path(proxies, server, tmp_path):
    with through(proxies, tmp_path, server) as nodes:
        proxies[0].delay(0.15)
        nodes.fault("delay")
        nodes.wait_for_progress(40)
        proxies[0].delay(0)
        report = nodes.settle(lossless=True)
    assert report.violations == []


@pytest.mark.fault
def test_f3_a_subscription_on_the_wrong_server(proxies, server, tmp_path, stack):
    """It answers PING and confirms every SUBSCRIBE, but nothing is published there."""
    lone = stack.enter_context(RedisServer(server.binary))
    with through(proxies, tmp_path, server) as nodes:
        nodes.wait_for_progress(20)
        if proxies[0].accepted % 2:
            proxies[0].accepted += 1
        proxies[0].detach_every_second(lone.port)
        nodes.fault("detached")
        began = time.monotonic()
        connected = wait_until(lambda: lone.connections() and proxies[0].accepted, "the detour")
        wait_until(lambda: proxies[0].accepted > connected, "noticing the detached subscription", 10)
        noticed = time.monotonic() - began
        proxies[0].detach_every_second(None)
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []
    assert noticed < NOTICED_WITHIN + LENIENCE


@pytest.mark.fault
@pytest.mark.parametrize("mode", ["WRITE", "ALL"])
def test_f14_client_pause(server, tmp_path, mode):
    with Nodes(tmp_path, [server.url], viewers=2, away=2) as nodes:
        nodes.wait_for_progress(20)
        server.command("CLIENT", "PAUSE", 3000, mode)
        nodes.fault(f"pause {mode}")
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []


def test_f15_a_frozen_server(server, tmp_path):
    """Commands sent into the freeze are carried out after it: nothing may be stored twice for that."""
    with Nodes(tmp_path, [server.url], viewers=2) as nodes:
        nodes.wait_for_progress(20)
        server.freeze()
        nodes.fault("freeze")
        time.sleep(2.5)
        server.thaw()
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []


@pytest.mark.fault
def test_f15_a_frozen_server_again_and_again(server, tmp_path):
    with Nodes(tmp_path, [server.url], viewers=2, count=3) as nodes:
        for pause in (0.3, 0.8, 1.1, 1.6, 3.5):
            nodes.wait_for_progress(10)
            server.freeze()
            nodes.fault("freeze")
            time.sleep(pause)
            server.thaw()
        nodes.wait_for_progress(20)
        report = nodes.settle(lossless=True)
    assert report.violations == []
