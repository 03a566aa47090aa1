"""Servers under test as real processes, and what a test does to them over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers import Process, free_port, wait_until

ROOT = Path(__file__).parent.parent.parent


def environment(database: Path, layer: dict[str, Any], limits: dict[str, Any] | None = None) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.sdk.settings",
        "PYTHONPATH": str(ROOT),
        "SDK_DATABASE": str(database),
        "SDK_LAYER": json.dumps(layer),
        "SDK_LIMITS": json.dumps(limits or {}),
    }


class Server:
    """One node: daphne or uvicorn with the SDK project."""

    def __init__(self, directory: Path, environ: dict[str, str], kind: str = "daphne") -> None:
        self.port = free_port()
        commands = {
            "daphne": ["daphne", "-b", "127.0.0.1", "-p", str(self.port), "tests.sdk.asgi:application"],
            "uvicorn": [
                "uvicorn", "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning",
                "--ws-per-message-deflate", "false", "tests.sdk.asgi:application",
            ],
        }  # fmt: skip
        command = [sys.executable, "-m", *commands[kind]]
        self.process = Process(command, ROOT, f"{kind}-{self.port}", environ)
        self.process.log = directory / f"{kind}-{self.port}.log"

    def start(self) -> Server:
        self.process.spawn()

        def answers() -> bool:
            assert self.process.alive, self.process.output()[-3000:]
            return self.get("/live/health")["status"] == "ok"

        wait_until(answers, f"a server on port {self.port}", 30)
        return self

    def stop(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/live/ws"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str, cookie: str = "") -> Any:
        return self._open(urllib.request.Request(self.url(path), headers={"Cookie": cookie} if cookie else {}))

    def post(self, path: str, **body: Any) -> Any:
        return self._open(urllib.request.Request(self.url(path), json.dumps(body).encode()))

    @staticmethod
    def _open(request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.loads(response.read())

    async def call(self, name: str, **arguments: Any) -> Any:
        """livechannels.<name>(…) in that process."""
        return (await asyncio.to_thread(self.post, f"/call/{name}", **arguments))["result"]

    async def fetch(self, path: str, cookie: str = "") -> Any:
        return await asyncio.to_thread(self.get, path, cookie)

    async def broadcast(self, kind: str, **payload: Any) -> None:
        await asyncio.to_thread(self.post, f"/broadcast/{kind}", **payload)

    async def sign_in(self, name: str, seconds: int = 600) -> dict[str, str]:
        """Headers of a browser that has signed in."""
        answer = await self.fetch(f"/sign-in/{name}?seconds={seconds}")
        return {"Cookie": f"sessionid={answer['session']}"}
