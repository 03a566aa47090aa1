"""Static bearer tokens, compared so that the time taken says nothing about them. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Iterable


def carries_token(authorization: str, tokens: Iterable[str]) -> bool:
    """Whether an Authorization header, as latin-1 text, is "Bearer" and one of the tokens; empty tokens never match."""
    scheme, _, given = authorization.partition(" ")
    sent = given.strip().encode("latin-1", "replace")
    if scheme.lower() != "bearer" or not sent:
        return False
    # No early end: every token is compared, whichever fits.
    return sum(hmac.compare_digest(sent, token.encode()) for token in tokens) > 0
