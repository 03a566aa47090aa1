"""Logging out closes the browser's sockets, on whatever node they are."""

from __future__ import annotations

import logging
from typing import Any

from ..auth.identity import session_hash
from ..exceptions import LiveChannelsError
from ..layer import live_layer
from ..messages.codes import FORCE_NO_RECONNECT

logger = logging.getLogger(__name__)


def close_session(sender: Any, request: Any, **_: Any) -> None:
    """Receiver of django.contrib.auth's `user_logged_out`: end the connections of this session, and no others.

    A logout never fails for it: a node that cannot be told notices at its next look at the user's rights.
    """
    key = getattr(getattr(request, "session", None), "session_key", None)
    if not key:
        return
    try:
        live_layer().broadcast_sync(
            "disconnect",
            {"session": session_hash(key), "code": FORCE_NO_RECONNECT.code, "reason": FORCE_NO_RECONNECT.reason},
        )
    except LiveChannelsError as error:
        logger.warning("The live connections of a session that ended are closed later: %s", error)
