from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

from livechannels import history
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def layer() -> Iterator[LiveChannelLayer]:
    with live_test_layer() as layer:
        yield layer


def run(name: str, *args: str, **options: Any) -> str:
    out = io.StringIO()
    call_command(name, *args, stdout=out, stderr=out, **options)
    return out.getvalue()


def test_publish_prints_the_position() -> None:
    printed = run("livechannels_publish", "open/a", '{"n": 1}', "--tag", "k=v=w")
    found = history("open/a")
    assert printed == f"{found.position.epoch}:1\n"
    assert (found.publications[0].data, found.publications[0].tags) == ({"n": 1}, {"k": "v=w"})
    assert run("livechannels_publish", "plain/a", "1") == "published\n"


def test_publish_once_per_key() -> None:
    first = run("livechannels_publish", "open/a", "1", "--idempotency-key", "k")
    assert run("livechannels_publish", "open/a", "1", "--idempotency-key", "k") == first


def test_publish_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('["x"]'))
    run("livechannels_publish", "open/a", "-")
    assert history("open/a").publications[0].data == ["x"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["open/a", "hello"], "needs quotes of its own"),
        (["nowhere", "1"], "No live_path"),
        (["a b", "1"], "' ' is not allowed"),
        (["open/a", "1", "--tag", "k"], "NAME=VALUE"),
    ],
)
def test_publish_says_what_is_wrong(args: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        run("livechannels_publish", *args)


def test_status_as_text_and_as_json() -> None:
    text = run("livechannels_status")
    assert "nodes: 0" in text
    assert "streams: 0" in text
    assert "channels: 0" in text
    found = json.loads(run("livechannels_status", "--json"))
    assert set(found) == {"health", "engine", "nodes", "streams", "channels", "counts"}


def test_status_when_the_store_is_away(layer: LiveChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(command: Any) -> Any:
        raise EngineUnavailable("Redis is away")

    monkeypatch.setattr(layer, "run_sync", away)
    with pytest.raises(CommandError, match="Redis is away"):
        run("livechannels_status")


@pytest.mark.parametrize("compress", [False, True])
def test_simulate_pushes_like_telegraf(live_server: Any, compress: bool) -> None:
    options = ["--gzip"] if compress else []
    printed = run(
        "livechannels_simulate", f"{live_server.url}/live/push/sim", "--count=3", "--interval=0", "--hosts=2", *options
    )
    assert printed.startswith("3 pushes accepted, 0 refused; 24 lines")
    for measurement in ("cpu", "mem", "net"):
        assert history(f"stream/sim/{measurement}").position.offset == 3
    status = json.loads(run("livechannels_status", "--json"))
    assert [channel["channel"] for channel in status["channels"]] == [
        "stream/sim/cpu",
        "stream/sim/mem",
        "stream/sim/net",
    ]
    assert "stream/sim/cpu" in run("livechannels_status")


def test_simulate_reports_refusals(live_server: Any) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError, match="No push was accepted"):
        call_command(
            "livechannels_simulate", f"{live_server.url}/live/push/sim", "--token=wrong", "--count=1", stderr=out
        )
    assert out.getvalue().startswith("401 ")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["ftp://host/live/push/x"], "not an http"),
        (["--hosts=0"], "--hosts is at least 1"),
        (["http://127.0.0.1:9/live/push/x", "--count=1"], "No push was accepted"),
    ],
)
def test_simulate_says_what_is_wrong(args: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        run("livechannels_simulate", *args)


@override_settings(LIVECHANNELS={})
def test_simulate_needs_a_token() -> None:
    with pytest.raises(CommandError, match="no push token"):
        run("livechannels_simulate")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_with_a_signal(number: signal.Signals) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "livechannels_run", "--verbosity=2"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "Running as node" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
