"""Samples: each measured in a fresh process, contenders in turn, medians, and the table they make.

A metric's name ends in its unit. What is counted per second is better when higher, all else when lower.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOST = "lost"
PACKAGES = (
    "channels", "channels-redis", "redis", "hiredis", "uvicorn", "uvloop", "daphne", "django",
)  # fmt: skip
Sample = dict[str, float]


def take(module: str, seconds: float = 120, **case: Any) -> Sample | str:
    """Run one sample as `python -m module --sample …`; what it measured, or the last line of its complaint."""
    command = [sys.executable, "-m", module, "--sample", json.dumps(case)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not done within {seconds:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1][:100]
    return {name: float(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


class Results:
    """Samples of several contenders; the first is the one the others are compared with."""

    def __init__(self, contenders: Sequence[str]) -> None:
        self.contenders = list(contenders)
        self._values: dict[str, dict[str, list[float]]] = {}
        self.lost = dict.fromkeys(contenders, 0.0)
        self.failures: dict[tuple[str, str], str] = {}

    def add(self, what: str, contender: str, sample: Sample | str) -> None:
        if isinstance(sample, str):
            self.failures[what, contender] = sample
            return
        for metric, value in sample.items():
            if metric == LOST:
                self.lost[contender] += value
            else:
                self._values.setdefault(metric, {}).setdefault(contender, []).append(value)

    def median(self, metric: str, contender: str) -> float | None:
        values = self._values.get(metric, {}).get(contender)
        return statistics.median(values) if values else None

    def ratio(self, metric: str, contender: str, base: str) -> float | None:
        """How many times better than `base`."""
        known, own = self.median(metric, base), self.median(metric, contender)
        if not known or not own or min(known, own) < 0:
            return None
        return own / known if metric.endswith("/s") else known / own

    def table(self, contenders: Sequence[str] = ()) -> str:
        """Markdown: the first contender's medians, the ratios of the others, and what was lost. All, or those named."""
        first, *others = contenders or self.contenders
        lines = ["| | " + " | ".join((first, *others)) + " |", "|---" * (len(others) + 2) + "|"]
        for metric in self._values:
            base = self.median(metric, first)
            cells = [_figure(base) if base is not None else "–"]
            for contender in others:
                own, ratio = self.median(metric, contender), self.ratio(metric, contender, first)
                figure = "–" if own is None else _figure(own)
                cells.append(figure if ratio is None else f"x{ratio:.2f} ({figure})")
            lines.append(f"| {metric} | " + " | ".join(cells) + " |")
        lines.append("| messages lost | " + " | ".join(f"{self.lost[name]:.0f}" for name in (first, *others)) + " |")
        if not contenders:
            lines += [f"\n{what}, {contender}: {why}" for (what, contender), why in self.failures.items()]
        return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def interleave(results: Results, what: str, repeats: int, measure: Callable[[str], Sample | str | None]) -> Results:
    """A B C A B C …: a machine's bad minute then hits all contenders alike. None skips a contender."""
    for _ in range(repeats):
        for contender in results.contenders:
            sample = measure(contender)
            if sample is not None:
                results.add(what, contender, sample)
    return results


def conditions(*servers: str) -> str:
    """The machine and the versions, in a paragraph."""
    known = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), {platform.system()}, "
        f"Python {platform.python_version()}; {known}; {', '.join(servers)} on loopback, without persistence. "
        f"Load average at the start: {os.getloadavg()[0]:.1f}."
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def options(description: str | None, parts: Sequence[str] = ()) -> argparse.Namespace:
    """--quick, --repeats, --only, --parts where there are any, and --sample, which only the tables themselves use."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="short samples, one each unless --repeats says otherwise")
    parser.add_argument("--repeats", type=int, help="samples of each contender; their median counts (default: 3)")
    parser.add_argument("--only", default="", help="part of the name of the rows to measure")
    if parts:
        parser.add_argument("--parts", nargs="+", choices=parts, help="which of the tables (default: all)")
    parser.add_argument("--sample", type=json.loads, help=argparse.SUPPRESS)
    found = parser.parse_args()
    found.repeats = found.repeats or (1 if found.quick else 3)
    return found
