from __future__ import annotations

import threading

import pytest

from livechannels import metrics
from livechannels.metrics import Sample


def test_a_counter_counts_for_each_combination_of_labels() -> None:
    dropped = metrics.counter("test_dropped_total", "Dropped.", "reason")
    dropped.inc(reason="slow")
    dropped.inc(2, reason="full")
    assert dropped.value(reason="slow") == 1
    assert dropped.value(reason="full") == 2
    assert dropped.value(reason="never") == 0
    assert metrics.snapshot()["test_dropped_total"] == 3


def test_the_same_name_is_the_same_metric_and_must_stay_of_its_kind() -> None:
    first = metrics.counter("test_same_total", "Same.")
    assert metrics.counter("test_same_total", "Same.") is first
    with pytest.raises(ValueError, match="already a counter"):
        metrics.gauge("test_same_total", "Same.")


def test_wrong_labels_are_refused() -> None:
    labelled = metrics.counter("test_labels_total", "Labels.", "reason")
    with pytest.raises(ValueError, match="has the labels"):
        labelled.inc()
    with pytest.raises(ValueError, match="has the labels"):
        labelled.inc(cause="x")


def test_a_gauge_can_ask_a_source_when_it_is_read() -> None:
    depth = metrics.gauge("test_depth", "Depth.", "queue")
    depth.collect_from(lambda: [Sample(("a",), 4), Sample(("b",), 5)])
    assert depth.value(queue="b") == 5


def test_threads_lose_no_count() -> None:
    total = metrics.counter("test_threads_total", "Threads.")

    def count() -> None:
        for _ in range(2000):
            total.inc()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total.value() == 8000


def test_render_is_prometheus_text() -> None:
    metrics.counter("test_render_total", "How often.", "reason").inc(3, reason='a"b')
    metrics.gauge("test_render_gauge", "How much.").set(1.5)
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    assert '\ntest_render_total{reason="a\\"b"} 3.0\n' in text.decode()
    assert "\ntest_render_gauge 1.5\n" in text.decode()
