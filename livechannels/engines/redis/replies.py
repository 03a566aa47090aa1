"""Error replies of Redis and what they mean to us. Pure."""

from __future__ import annotations

from typing import Any

Address = tuple[str, int]


class ReplyError(Exception):
    """An error reply; `code` is its first word, such as READONLY or NOSCRIPT."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.split(" ", 1)[0].rstrip(":")

    @property
    def path_is_wrong(self) -> bool:
        """This server cannot serve us now, another or the same one later can: reconnect."""
        return self.code in _RECONNECT

    @property
    def not_allowed(self) -> bool:
        """This command is refused here: by the user's rights, or because it was renamed or taken away."""
        return self.code == "NOPERM" or "unknown command" in str(self).lower()

    @property
    def is_redirect(self) -> bool:
        return self.code in ("MOVED", "ASK")

    @property
    def busy(self) -> bool:
        """The same server will answer in a moment."""
        return self.code in ("TRYAGAIN", "BUSY")


_RECONNECT = frozenset({"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED", "NOREPLICAS"})


class Lost(Exception):
    """The connection ended before the answer came. `sent` tells whether the request may be carried out, even later."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


_CODES = {
    "NoScriptError": "NOSCRIPT", "ReadOnlyError": "READONLY", "OutOfMemoryError": "OOM",
    "BusyLoadingError": "LOADING", "NoPermissionError": "NOPERM", "AskError": "ASK",
    "MovedError": "MOVED", "TryAgainError": "TRYAGAIN", "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
}  # fmt: skip


def from_redis_py(error: Exception) -> ReplyError:
    """The reply behind an error class of redis-py, which takes the code out of the text."""
    code, text = _CODES.get(type(error).__name__, ""), str(error)
    return ReplyError(text if text.startswith(code) else f"{code} {text}")


def redirected_to(error: ReplyError) -> Address:
    """The address in a MOVED or ASK."""
    host, _, port = str(error).split(" ")[2].rpartition(":")
    return host, int(port)


def slot_owners(ranges: Any, asked: str) -> list[Address] | None:
    """Slot to master from CLUSTER SLOTS; None if some slot has none. An empty host means the one we asked."""
    owners: list[Address | None] = [None] * 16384
    for first, last, master, *_ in ranges:
        host = master[0].decode() if master[0] else ""
        address = (host if host not in ("", "?") else asked, int(master[1]))
        owners[first : last + 1] = [address] * (last + 1 - first)
    return owners if all(owner is not None for owner in owners) else None  # type: ignore[return-value]
