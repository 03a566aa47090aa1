"""Influx line protocol: a body of bytes to points, and an error with its line number for each bad line. Pure.

The lines themselves are read by line-protocol-parser, which only this module imports. What it leaves to its
caller is done here: strict UTF-8 (it crashes the process on other bytes), splitting, string fields that hold
newlines, comments, limits, precision, and times for points that carry none.

Where the protocol leaves a choice: of a field repeated in one line the first counts; a tag repeated in one
line makes the line bad; a tag and a field may share a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from line_protocol_parser import LineFormatError, parse_line

FieldValue = float | int | str | bool

# How many nanoseconds one unit of each precision is.
_UNITS = {"ns": 1, "n": 1, "us": 10**3, "u": 10**3, "µs": 10**3, "µ": 10**3, "ms": 10**6, "s": 10**9}
_MILLISECOND = 10**6
_LATEST = 8_640_000_000_000_000  # the last millisecond a JavaScript Date can hold
_EXCERPT = 60

_UNESCAPED_SPACE = re.compile(r"(?<!\\) ")
_UNESCAPED_COMMA = re.compile(r"(?<!\\),")
_STRING_END = re.compile(r'(?:[^"\\]++|\\.)*+"', re.DOTALL)


class UnknownPrecision(ValueError):
    """The precision is none of ns, us, ms and s."""


class Point(NamedTuple):
    """One line that was understood: `time` in milliseconds, `line` counted from 1, `timed` if the line had a time."""

    measurement: str
    tags: Mapping[str, str]
    fields: dict[str, FieldValue]
    time: float
    line: int
    timed: bool


class BadLine(NamedTuple):
    """One line that was refused, and why."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


def parse(
    body: bytes, *, arrival: int, precision: str = "ns", line_bytes: int = 65536, tags: int = 64
) -> Iterator[Point | BadLine]:
    """Each line's point or error, in their order; blank lines and comments give nothing.

    Points without a time get `arrival` (milliseconds). Raises UnknownPrecision, at once.
    """
    if precision not in _UNITS:
        raise UnknownPrecision(f"precision {precision[:20]!r} is unknown; use ns, us, ms or s")
    return _Reader(body, arrival, _UNITS[precision], line_bytes, tags).read()


class _Reader:
    def __init__(self, body: bytes, arrival: int, unit: int, line_bytes: int, tags: int) -> None:
        self._lines = body.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        self._arrival = arrival
        self._unit = unit
        self._line_bytes = line_bytes
        self._tags = tags
        self._patience = len(body)  # bytes that may be looked through in vain for the end of a string

    def read(self) -> Iterator[Point | BadLine]:
        index = 0
        while index < len(self._lines):
            raw = self._lines[index]
            number, index = index + 1, index + 1
            text = raw.strip(b" \t\r")
            if not text or text.startswith(b"#"):
                continue
            outcome = self._point(raw, number)
            if isinstance(outcome, BadLine):
                longer = self._with_following(index - 1)
                if longer is not None:
                    joined, end = longer
                    again = self._point(joined, number)
                    if isinstance(again, Point):
                        outcome, index = again, end
                        self._patience += len(joined)
            yield outcome

    def _point(self, raw: bytes, number: int) -> Point | BadLine:
        if len(raw) > self._line_bytes:
            return BadLine(number, f"longer than {self._line_bytes} bytes; send fewer fields a line")
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            return BadLine(number, f"not UTF-8: byte 0x{raw[error.start]:02x} at column {error.start + 1}")
        if line.count(",") > self._tags and self._tag_count(line) > self._tags:
            return BadLine(number, f"more than {self._tags} tags")
        try:
            parsed = parse_line(line)
        except (LineFormatError, UnicodeError) as error:
            reason = str(error).rstrip(".").replace("Failed to parse", "cannot parse")
            return BadLine(number, f"{reason} in {_excerpt(line)}")
        moment = parsed["time"]
        time = self._arrival if moment is None else self._milliseconds(moment)
        if abs(time) > _LATEST:
            return BadLine(number, f"time {moment} is out of range; is the precision right?")
        return Point(parsed["measurement"], parsed["tags"], parsed["fields"], time, number, moment is not None)

    def _milliseconds(self, moment: int) -> float:
        whole, rest = divmod(moment * self._unit, _MILLISECOND)
        return whole + rest / _MILLISECOND if rest else whole

    @staticmethod
    def _tag_count(line: str) -> int:
        start = line.lstrip(" ")
        end = _UNESCAPED_SPACE.search(start)
        return len(_UNESCAPED_COMMA.findall(start, 0, end.start() if end else len(start)))

    def _with_following(self, start: int) -> tuple[bytes, int] | None:
        """The line together with those that a string field left open at its end goes on in, and the index after."""
        first = self._lines[start].decode(errors="replace")
        fields = _UNESCAPED_SPACE.search(first, len(first) - len(first.lstrip(" \t")))
        if fields is None or not _ends_open(first[fields.end() :], False):
            return None
        size = len(self._lines[start])
        for end in range(start + 1, len(self._lines)):
            size += 1 + len(self._lines[end])
            self._patience -= 1 + len(self._lines[end])
            if size > self._line_bytes or self._patience < 0:
                return None
            if not _ends_open(self._lines[end].decode(errors="replace"), True):
                return b"\n".join(self._lines[start : end + 1]), end + 1
        return None


def _ends_open(text: str, opened: bool) -> bool:
    """Whether a string field is open at the end of this piece of a field set, given whether one is at its start."""
    place = 0
    while True:
        if opened:
            close = _STRING_END.match(text, place)
            if close is None:
                return True
            place = close.end()
        begin = text.find('="', place)
        if begin < 0:
            return False
        place, opened = begin + 2, True


def _excerpt(line: str) -> str:
    return repr(line if len(line) <= _EXCERPT else line[:_EXCERPT] + "…")
