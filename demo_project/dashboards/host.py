"""What this host is doing, read with psutil: one reader for each metric, one dict of numbers for each reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

Reading = dict[str, float]


class CpuReader:
    """Percent of each core that was busy since the last reading."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times(percpu=True)

    def read(self) -> Reading:
        now = psutil.cpu_times(percpu=True)
        pairs = zip(self._before, now, strict=False)
        reading = {f"core {number}": busy_percent(*pair) for number, pair in enumerate(pairs)}
        self._before = now
        return reading


class MemoryReader:
    """Bytes in use by programs, and bytes of files the kernel keeps at hand as long as nobody needs the room."""

    def read(self) -> Reading:
        memory = psutil.virtual_memory()
        cache = getattr(memory, "cached", 0) + getattr(memory, "buffers", 0)
        return {"used": float(memory.used), "cache": float(cache)}


class RateReader:
    """Bytes a second between two readings of counters that only grow; one that starts anew counts as 0."""

    def __init__(self, counters: Callable[[], Mapping[str, int]]) -> None:
        self._counters = counters
        self._before = counters()
        self._at = time.monotonic()

    def read(self) -> Reading:
        now, at = self._counters(), time.monotonic()
        elapsed = max(at - self._at, 1e-3)
        reading = {name: max(0, now[name] - self._before.get(name, now[name])) / elapsed for name in now}
        self._before, self._at = now, at
        return reading


def disk_counters() -> dict[str, int]:
    disk = psutil.disk_io_counters()
    return {"read": disk.read_bytes, "written": disk.write_bytes} if disk else {"read": 0, "written": 0}


def network_counters() -> dict[str, int]:
    """The loopback apart from the rest: there each byte is both sent and received."""
    total = {"received": 0, "sent": 0, "loopback": 0}
    for name, interface in psutil.net_io_counters(pernic=True).items():
        if name.startswith("lo"):
            total["loopback"] += interface.bytes_recv
        else:
            total["received"] += interface.bytes_recv
            total["sent"] += interface.bytes_sent
    return total


def busy_percent(before: Any, now: Any) -> float:
    """Share of time between two cpu_times of one core in which it was not idle, 0 to 100."""
    # guest time is counted in user time already.
    spent = {name: getattr(now, name) - getattr(before, name) for name in now._fields if not name.startswith("guest")}
    total = sum(spent.values())
    idle = spent["idle"] + spent.get("iowait", 0)
    return min(100.0, max(0.0, 100 * (1 - idle / total))) if total > 0 else 0.0


READERS: Mapping[str, Callable[[], Any]] = {
    "cpu": CpuReader,
    "memory": MemoryReader,
    "disk": lambda: RateReader(disk_counters),
    "network": lambda: RateReader(network_counters),
}
