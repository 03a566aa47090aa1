"""What the memory engine alone has to see to: it forgets by itself what a store with times to live forgets."""

from __future__ import annotations

import pytest

from livechannels.engines import memory
from livechannels.engines.base import LeaseAcquire, LeaseGet, LeaseRelease
from livechannels.engines.memory import MemoryEngine
from livechannels.messages import topics


def take(engine: MemoryEngine, name: str, session: str = "s", ttl: float = 60) -> int:
    token = engine.run_sync(LeaseAcquire(topics.live(name), session, "node", ttl)).token
    assert token is not None
    return token


def test_leases_that_ended_are_forgotten_and_tokens_still_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SWEEP_EVERY", 0.0)
    engine = MemoryEngine()
    tokens = [take(engine, f"expired-{number}", ttl=0) for number in range(50)]
    for number in range(50):
        tokens.append(take(engine, f"released-{number}"))
        assert engine.run_sync(LeaseRelease(topics.live(f"released-{number}"), "s", tokens[-1]))
    tokens.append(take(engine, "held"))
    tokens.append(take(engine, "expired-0", "another"))
    tokens.append(take(engine, "released-0", "another"))
    assert tokens == sorted(set(tokens))
    assert len(engine._store._leases) == 3
    held = engine.run_sync(LeaseGet(topics.live("held")))
    assert held is not None
    assert held.token == tokens[100]
