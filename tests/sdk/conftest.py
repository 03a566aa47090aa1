"""A database with users, servers on it, and a node process with centrifuge-js."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.javascript import JavaScript
from tests.sdk.servers import ROOT, Server, environment

USERS = """
from django.contrib.auth import get_user_model
for name in ("ann", "bob", "cleo", "dora"):
    get_user_model().objects.create_user(name, is_staff=True)
"""


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the users ann, bob, cleo and dora, all staff; copied for each test that changes it."""
    database = tmp_path_factory.mktemp("sdk") / "users.sqlite3"
    environ = environment(database, {"ha_engine": "memory"})
    for command in (["migrate", "-v0", "--run-syncdb"], ["shell", "-v0", "-c", USERS]):
        subprocess.run([sys.executable, "-m", "django", *command], env=environ, cwd=ROOT, check=True, timeout=60)
    return database


Start = Callable[..., Server]


@contextmanager
def _starting(users: Path, directory: Path) -> Iterator[Start]:
    """Start servers on a fresh copy of the database; all are gone at the end."""
    database = directory / "users.sqlite3"
    shutil.copy(users, database)
    started: list[Server] = []

    def start(layer: dict[str, Any] | None = None, kind: str = "daphne", **limits: Any) -> Server:
        server = Server(directory, environment(database, layer or {"ha_engine": "memory"}, limits), kind)
        started.append(server)
        return server.start()

    try:
        yield start
    finally:
        for server in started:
            server.kill()


@pytest.fixture
def start(users: Path, tmp_path: Path) -> Iterator[Start]:
    """Servers of this test's own, which it may break: start(layer config, kind, **limits)."""
    with _starting(users, tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def server(users: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One daphne on the memory engine for all tests; take names of your own (`room`), and leave ann as she is."""
    with _starting(users, tmp_path_factory.mktemp("shared")) as start:
        yield start()


@pytest.fixture
def room() -> str:
    """A live channel nobody else uses."""
    return f"open/{uuid.uuid4().hex}"


@pytest.fixture
async def javascript() -> AsyncIterator[JavaScript]:
    """centrifuge-js in node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    async with JavaScript(node) as process:
        yield process
