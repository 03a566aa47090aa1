"""The offline judge: reads what every node logged and what survived in the store, and says which promise was broken.

I2: a viewer has every message of the surviving history after where it began, in order, without repeats, or was told
that it has not. I6: one idempotency key, one entry. Group members: every acknowledged message once, in order, unless a
gap was told. It knows nothing of livechannels: only events and offsets.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
Place = tuple[str, str, str]
NEAR = 1.0


@dataclass
class Surviving:
    """What the store holds of one channel at the end: its top, and the id at each offset it still has."""

    epoch: str
    top: int
    ids: dict[int, str]


@dataclass
class View:
    """What one viewer knows: everything after `base`, as far as it was told."""

    base: int = 0
    last: int = 0
    epoch: str = ""
    known: dict[int, str] = field(default_factory=dict)
    unplaced: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    attached: bool = False
    resets: int = 0
    recoveries: int = 0

    def lacks(self, offsets: Iterable[int], ids: Callable[[int], str | None]) -> list[int]:
        """Which of these offsets hold something this viewer was never given, not even without a position."""
        return [offset for offset in offsets if ids(offset) not in self.unplaced]


@dataclass
class Report:
    """`violations` is empty iff every promise held; the rest is figures."""

    violations: list[str] = field(default_factory=list)
    published: int = 0
    seen: int = 0
    recovered: int = 0
    resets: int = 0
    acknowledged_lost: int = 0
    heard: int = 0
    gaps: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        lines = [
            f"faults: {sum(self.faults.values())} ({kinds})",
            f"publications acknowledged: {self.published}, seen by viewers: {self.seen}",
            f"recoveries answered true: {self.recovered}, answered false: {self.resets}",
            f"acknowledged but gone after a failover or restart: {self.acknowledged_lost}",
            f"group messages heard: {self.heard}, gaps told: {self.gaps}",
            f"violations: {len(self.violations)}",
            *(f"  {violation}" for violation in self.violations[:40]),
        ]
        return "\n".join(lines)


def judge(
    events: Iterable[Event], surviving: dict[str, Surviving], *, dead: Iterable[str] = (), lossless: bool = False
) -> Report:
    """Judge a run. `dead` nodes were killed, so what they last knew is not compared with the end.

    `lossless`: the store lost nothing, so every acknowledged publication must have survived.
    """
    ordered = sorted(events, key=lambda event: event["t"])
    report = Report()
    report.faults.update(event["kind"] for event in ordered if event["event"] == "fault")
    _judge_store(ordered, surviving, lossless, report)
    gone = set(dead)
    for place, view in _follow(ordered, surviving, report).items():
        report.resets += view.resets
        report.recovered += view.recoveries
        if place[0] not in gone and view.attached:
            _compare(place, view, surviving[place[2]], report)
    _judge_groups(ordered, gone, report)
    return report


def _judge_store(events: list[Event], surviving: dict[str, Surviving], lossless: bool, report: Report) -> None:
    for channel, kept in surviving.items():
        for name, count in Counter(kept.ids.values()).items():
            if count > 1:
                report.violations.append(f"{channel}: {name} is stored {count} times")
        numbers: dict[str, int] = defaultdict(int)
        for offset in sorted(kept.ids):
            publisher, _, number = kept.ids[offset].rpartition("-")
            if int(number) < numbers[publisher]:
                report.violations.append(
                    f"{channel}: {kept.ids[offset]} is stored after {publisher}-{numbers[publisher]}"
                )
            numbers[publisher] = int(number)
    places = {channel: {name: offset for offset, name in kept.ids.items()} for channel, kept in surviving.items()}
    for event in events:
        if event["event"] != "published":
            continue
        report.published += 1
        channel, name = event["channel"], event["id"]
        kept = surviving.get(channel)
        if kept is None:
            continue
        found = places[channel].get(name)
        if found is None:
            oldest = min(kept.ids, default=kept.top + 1)
            if event["offset"] >= oldest or event["offset"] > kept.top or event["epoch"] != kept.epoch:
                report.acknowledged_lost += 1
                if lossless:
                    report.violations.append(f"{channel}: {name} was acknowledged and is gone")
        elif found != event["offset"]:
            report.violations.append(f"{channel}: {name} was acknowledged at {event['offset']} and is at {found}")


def _follow(events: list[Event], surviving: dict[str, Surviving], report: Report) -> dict[Place, View]:
    """What each viewer was told. One that was served while the store was away is not served again when it turns out
    that the store took the publication: that offset may be missing, the publication may not."""
    views: dict[Place, View] = defaultdict(View)
    # What stood where, also in a store that was erased since.
    stood = {
        (event["channel"], event["epoch"], event["offset"]): event["id"]
        for event in events
        if event["event"] in ("seen", "published")
    }
    for channel, kept in surviving.items():
        stood.update({(channel, kept.epoch, offset): name for offset, name in kept.ids.items()})
    for event in events:
        if "viewer" not in event:
            continue
        place = (event["node"], event["viewer"], event["channel"])
        view, complain = views[place], report.violations.append
        kind = event["event"]
        if kind == "subscribed":
            if event["since"] is not None and event["recovered"]:
                if event["since"][1] != view.last:
                    complain(f"{place}: resumed from {event['since']}, but was at {view.last}")
                view.recoveries += 1
            else:
                view.resets += event["since"] is not None
                view.known, view.base, view.last = {}, event["offset"], event["offset"]
            view.epoch, view.attached, view.repeated = event["epoch"], True, set()
        elif kind == "activated":
            if view.last != event["offset"]:
                complain(f"{place}: was answered recovered up to {event['offset']}, but was given up to {view.last}")
        elif kind == "unplaced":
            view.unplaced.add(event["id"])
            view.repeated.add(event["id"])
        elif kind == "seen":
            report.seen += 1
            if event["epoch"] != view.epoch:
                complain(f"{place}: {event['id']} of epoch {event['epoch']} while at {view.epoch}")
            if event["offset"] <= view.last:
                complain(f"{place}: offset {event['offset']} ({event['id']}) again, was at {view.last}")
            elif lost := view.lacks(
                range(view.last + 1, event["offset"]),
                lambda offset, event=event: stood.get((event["channel"], event["epoch"], offset)),
            ):
                complain(f"{place}: offset {event['offset']} after {view.last}: {len(lost)} silently lost")
            if view.attached and event["id"] in view.repeated:
                complain(f"{place}: {event['id']} was given without a position, and again at {event['offset']}")
            view.last = event["offset"]
            view.known[event["offset"]] = event["id"]
        elif kind in ("insufficient", "left"):
            view.attached = False
    return views


def _compare(place: Place, view: View, kept: Surviving, report: Report) -> None:
    complain = report.violations.append
    if view.epoch != kept.epoch or view.last > kept.top or view.lacks(range(view.last + 1, kept.top + 1), kept.ids.get):
        complain(f"{place}: ended at {view.epoch}:{view.last}, the store at {kept.epoch}:{kept.top}")
    wrong = [offset for offset, name in view.known.items() if kept.ids.get(offset, name) != name]
    if wrong:
        complain(f"{place}: knows {len(wrong)} messages that were taken back and was never told, from {min(wrong)} on")
    missing = view.lacks(
        [offset for offset in kept.ids if offset > view.base and offset not in view.known], kept.ids.get
    )
    if missing:
        complain(f"{place}: lacks {len(missing)} of the surviving messages, from {min(missing)} on, and was never told")


def _judge_groups(events: list[Event], dead: set[str], report: Report) -> None:
    gone = [event["t"] for event in events if event["event"] == "server-gone"]
    sent: dict[str, list[tuple[float, str]]] = defaultdict(list)
    heard: dict[tuple[str, str], list[Event]] = defaultdict(list)
    joined: dict[tuple[str, str], float] = {}
    for event in events:
        if event["event"] == "group-sent":
            sent[event["group"]].append((event["began"], event["id"]))
        elif event["event"] in ("heard", "gap"):
            heard[event["node"], event["group"]].append(event)
        elif event["event"] == "joined":
            joined[event["node"], event["group"]] = event["t"]
    for (node, group), since in joined.items():
        told = heard[node, group]
        report.heard += sum(event["event"] == "heard" for event in told)
        report.gaps += sum(event["event"] == "gap" for event in told)
        if node not in dead:
            acknowledged = [name for began, name in sent[group] if began > since]
            unsure = {name for began, name in sent[group] if any(abs(began - when) < NEAR for when in gone)}
            _judge_member(f"({node}, {group})", acknowledged, unsure, told, report)


def _judge_member(who: str, acknowledged: list[str], unsure: set[str], told: list[Event], report: Report) -> None:
    """Between two gaps: every acknowledged message once, in the order it was sent.

    One acknowledged in the moment its server went away (`unsure`) may be gone before anybody heard it.
    """
    rank = {name: index for index, name in enumerate(acknowledged)}
    for name, count in Counter(event["id"] for event in told if event["event"] == "heard").items():
        if count > 1:
            report.violations.append(f"{who}: heard {name} {count} times")
    last, gap = -1, False
    for event in told:
        if event["event"] == "gap":
            gap = True
            continue
        index = rank.get(event["id"])
        if index is None:
            continue
        if index <= last:
            report.violations.append(f"{who}: heard {event['id']} after {acknowledged[last]}")
        elif not gap and (missing := [name for name in acknowledged[last + 1 : index] if name not in unsure]):
            report.violations.append(f"{who}: {len(missing)} messages before {event['id']} silently lost")
        last, gap = max(last, index), False
    missing = [name for name in acknowledged[last + 1 :] if name not in unsure]
    if missing and not gap:
        report.violations.append(f"{who}: the last {len(missing)} messages silently lost")
