"""Tests stand beside what they test: tests/<room>/test_<module>.py, or a neighbour named here."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "livechannels"

# Modules that are tested through another one, and where.
NEIGHBOURS = {
    "node/feed.py": "node/test_feeds.py",
    "clients/commands.py": "clients/test_session.py",
    "clients/connections.py": "clients/test_sessions.py",
    "codec.py": "test_public_surface.py",
    "engines/base.py": "engines/test_contract_topics.py",
    "engines/redis/cluster.py": "faults/test_failover.py",
    "engines/redis/connect.py": "engines/redis/test_link.py",
    "engines/redis/keys.py": "engines/redis/test_acl.py",
    "engines/redis/port.py": "engines/redis/test_operations.py",
    "engines/redis/publishing.py": "engines/redis/test_operations.py",
    "engines/redis/replies.py": "engines/redis/test_operations.py",
    "engines/redis/requests.py": "engines/redis/test_operations.py",
    "engines/redis/scripts.py": "engines/redis/test_operations.py",
    "engines/redis/sync_connect.py": "engines/redis/test_sync_client.py",
    "exceptions.py": "test_public_surface.py",
    "layer/live.py": "layer/test_live_methods.py",
    "layer/process.py": "layer/test_processes.py",
    "messages/codes.py": "clients/test_centrifuge.py",
    "messages/policy.py": "test_channels.py",
    "node/node.py": "layer/test_loops.py",
    "streams/candidate.py": "streams/test_supervisor.py",
    "streams/source.py": "streams/test_supervisor.py",
    "urls.py": "test_routing.py",
}
MODULES = [
    path.relative_to(PACKAGE)
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" and "management" not in path.parts
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_its_tests(module: Path) -> None:
    own = TESTS / module.parent / f"test_{module.name}"
    neighbour = NEIGHBOURS.get(module.as_posix())
    assert own.exists() or (neighbour and (TESTS / neighbour).exists()), f"{module} is tested by {own} or a neighbour"


def test_no_neighbour_is_named_for_a_module_that_is_gone() -> None:
    assert set(NEIGHBOURS) <= {module.as_posix() for module in MODULES}
