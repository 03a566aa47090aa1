from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import _die_with_parent, free_port, wait_until

ROOT = Path(__file__).parent.parent.parent

PREAMBLE = """
import asyncio, os, signal, sys, time
from livechannels.node.shutdown import before_exit

def say(*words):
    print(*words, flush=True)

async def leave():
    await asyncio.sleep(0.1)
    say("left")

def leave_late():
    say("left late")
"""

APPLICATION = (
    PREAMBLE
    + """
started = False

async def application(scope, receive, send):
    global started
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if not started:
        started = True
        before_exit(leave, leave_late)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
)


class Script:
    """A child process that runs a piece of Python and whose lines are read."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=_die_with_parent, env={**os.environ, **(env or {})},
        )  # fmt: skip

    def wait_for(self, line: str) -> None:
        assert self.process.stdout
        seen = []
        for found in self.process.stdout:
            seen.append(found)
            if found.strip() == line:
                return
        raise AssertionError(f"the process ended without {line!r}: {seen}")

    def stop(self, number: int = signal.SIGTERM) -> list[str]:
        """Send a signal; the lines said until the end."""
        self.process.send_signal(number)
        return self.rest()

    def rest(self) -> list[str]:
        assert self.process.stdout
        output = self.process.stdout.read()  # communicate() would pass by what this stream has read ahead
        self.process.wait(15)
        return output.split("\n")


RunScript = Callable[..., Script]


@pytest.fixture
def run() -> Iterator[RunScript]:
    scripts: list[Script] = []

    def start(*arguments: str, **options: Any) -> Script:
        scripts.append(Script(*arguments, **options))
        return scripts[-1]

    yield start
    for script in scripts:
        script.process.kill()
        script.process.wait()
        script.process.stdout.close()


def code(body: str) -> str:
    return PREAMBLE + textwrap.dedent(body)


WAITS = code(
    """
    async def main():
        before_exit(leave, leave_late)
        say("ready")
        await asyncio.sleep(60)

    asyncio.run(main())
    """
)


def test_a_plain_script_leaves_before_sigterm_ends_it(run):
    script = run("-c", WAITS)
    script.wait_for("ready")
    assert script.stop()[:1] == ["left"]
    assert script.process.returncode == -signal.SIGTERM


def test_a_second_sigterm_ends_it_at_once(run):
    script = run("-c", WAITS.replace("asyncio.sleep(0.1)", "asyncio.sleep(30)"))
    script.wait_for("ready")
    script.process.send_signal(signal.SIGTERM)
    script.process.send_signal(0)
    wait_until(lambda: script.process.poll() is not None or script.process.send_signal(signal.SIGTERM), "its end", 2)
    assert script.process.returncode == -signal.SIGTERM


def test_ctrl_c_still_is_a_keyboard_interrupt_and_what_it_cut_short_is_done_at_exit(run):
    script = run("-c", WAITS)
    script.wait_for("ready")
    said = script.stop(signal.SIGINT)
    assert "left late" in said
    assert any("KeyboardInterrupt" in line for line in said)


def test_handlers_that_were_there_are_called(run):
    script = run(
        "-c",
        code(
            """
            async def main():
                ended = asyncio.Event()
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
                before_exit(leave, leave_late)
                say("ready")
                await ended.wait()
                await asyncio.sleep(0.5)
                say("ended by itself")

            asyncio.run(main())
            """
        ),
    )
    script.wait_for("ready")
    assert script.stop()[:2] == ["left", "ended by itself"]
    assert script.process.returncode == 0


def test_without_a_signal_it_is_done_at_exit(run):
    script = run("-c", WAITS.replace("asyncio.sleep(60)", "asyncio.sleep(0)"))
    script.wait_for("ready")
    assert script.rest()[0] == "left late"


def test_what_was_called_off_is_not_done(run):
    script = run("-c", WAITS.replace("before_exit(leave, leave_late)", "before_exit(leave, leave_late)()"))
    script.wait_for("ready")
    assert script.stop() == [""]


def test_a_forked_child_does_not_leave_for_its_parent(run):
    script = run(
        "-c",
        code(
            """
            async def main():
                before_exit(leave, leave_late)
                child = os.fork()
                if not child:
                    sys.exit()
                os.waitpid(child, 0)
                say("child gone")

            asyncio.run(main())
            """
        ),
    )
    said = [line for line in script.rest() if line in ("child gone", "left", "left late")]
    assert said == ["child gone", "left late"]


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_servers_leave_before_they_close_their_sockets(run, tmp_path, server):
    (tmp_path / "tiny_asgi.py").write_text(APPLICATION)
    port = free_port()
    options = {
        "daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "tiny_asgi:application"],
        "uvicorn": ["-m", "uvicorn", "--port", str(port), "--lifespan", "off", "tiny_asgi:application"],
    }[server]
    script = run(*options, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    wait_until(lambda: connection.connect() is None, f"{server} listens")
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    said = script.stop()
    assert "left" in said
    assert "left late" not in said
    connection.close()
