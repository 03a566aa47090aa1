"""Counters and gauges of this process: made where something is counted, read by the `metrics` view.

Any module may import this one; it imports nothing but the standard library. A metric is made once, at
module level, and asking for the same name again returns the same object:

    DROPPED = metrics.counter("livechannels_dropped_total", "Messages dropped at a full mailbox.", "reason")
    DROPPED.inc(reason="capacity")

`render` turns everything into Prometheus' text format with prometheus_client (extra: livechannels[metrics]).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

Labels = tuple[str, ...]

_lock = threading.Lock()
_metrics: dict[str, Metric] = {}


class Sample(NamedTuple):
    """One value of one metric; `labels` are the values of its label names, in their order."""

    labels: Labels
    value: float


class Metric:
    """A counter (only rises) or a gauge, with one value for each combination of label values."""

    __slots__ = ("_source", "_values", "help", "kind", "label_names", "name")

    def __init__(self, kind: Literal["counter", "gauge"], name: str, help: str, label_names: Labels) -> None:
        self.kind = kind
        self.name = name
        self.help = help
        self.label_names = label_names
        self._values: dict[Labels, float] = {} if label_names else {(): 0}
        self._source: Callable[[], Iterable[Sample]] | None = None

    def inc(self, amount: float = 1, **labels: str) -> None:
        """Add to the value. Safe from any thread."""
        key = self._key(labels)
        with _lock:
            self._values[key] = self._values.get(key, 0) + amount

    def set(self, value: float, **labels: str) -> None:
        """Replace the value of a gauge."""
        key = self._key(labels)
        with _lock:
            self._values[key] = value

    def collect_from(self, source: Callable[[], Iterable[Sample]]) -> None:
        """Ask `source` at reading time instead of keeping values; it must not block."""
        self._source = source

    def value(self, **labels: str) -> float:
        """The value now, 0 if it was never counted."""
        key = self._key(labels)
        return next((sample.value for sample in self.samples() if sample.labels == key), 0)

    def samples(self) -> list[Sample]:
        if self._source is not None:
            return list(self._source())
        with _lock:
            return [Sample(labels, value) for labels, value in self._values.items()]

    def _key(self, labels: dict[str, str]) -> Labels:
        if not labels and not self.label_names:
            return ()
        if set(labels) != set(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, not {tuple(labels)}")
        return tuple(labels[name] for name in self.label_names)


def counter(name: str, help: str, *label_names: str) -> Metric:
    """The counter `name` (by custom ending in `_total`), made at the first call."""
    return _metric("counter", name, help, label_names)


def gauge(name: str, help: str, *label_names: str) -> Metric:
    """The gauge `name`, made at the first call."""
    return _metric("gauge", name, help, label_names)


def _metric(kind: Literal["counter", "gauge"], name: str, help: str, label_names: Labels) -> Metric:
    with _lock:
        known = _metrics.get(name)
        if known is None:
            known = _metrics[name] = Metric(kind, name, help, label_names)
    if (known.kind, known.label_names) != (kind, label_names):
        raise ValueError(f"{name} is already a {known.kind} with the labels {known.label_names}")
    return known


def all_metrics() -> list[Metric]:
    """Every metric made so far, by name."""
    with _lock:
        return [metric for _, metric in sorted(_metrics.items())]


def snapshot() -> dict[str, float]:
    """The sum of each metric over its labels, for status pages and tests."""
    return {metric.name: sum(sample.value for sample in metric.samples()) for metric in all_metrics()}


def render() -> tuple[bytes, str]:
    """The Prometheus exposition and its content type. Raises ImportError without prometheus_client."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

    families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}

    class Everything(Collector):
        def collect(self) -> Iterator[Family]:
            for metric in all_metrics():
                family = families[metric.kind](metric.name, metric.help, labels=metric.label_names)
                for sample in metric.samples():
                    family.add_metric(sample.labels, sample.value)
                yield family

    registry = CollectorRegistry()
    registry.register(Everything())
    return generate_latest(registry), CONTENT_TYPE_LATEST
