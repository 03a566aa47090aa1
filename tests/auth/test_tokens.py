from __future__ import annotations

import pytest

from livechannels.auth.tokens import carries_token


@pytest.mark.parametrize(
    "header", ["Bearer one", "bearer two", "BEARER  two ", "Bearer drö".encode().decode("latin-1")]
)
def test_a_known_token(header: str) -> None:
    assert carries_token(header, ["one", "two", "drö"])


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "one", "Basic one", "Token one", "Bearer on", "Bearer onee", "Bearer ÿ€"]
)
def test_anything_else(header: str) -> None:
    assert not carries_token(header, ["one", "two", ""])
    assert not carries_token(header, [])
