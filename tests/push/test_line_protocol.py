from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livechannels.push.line_protocol import BadLine, Point, UnknownPrecision, parse

ARRIVAL = 1_700_000_000_000


def points(body: bytes, **options) -> list[Point]:
    found = list(parse(body, arrival=ARRIVAL, **options))
    assert all(isinstance(each, Point) for each in found), found
    return found  # type: ignore[return-value]


def errors(body: bytes, **options) -> list[str]:
    return [str(each) for each in parse(body, arrival=ARRIVAL, **options) if isinstance(each, BadLine)]


def test_a_line_of_telegraf() -> None:
    body = b'cpu,cpu=cpu0,host=a usage=1.5,n=3i,big=18446744073709551615u,up=true,note="x y" 1700000000000000000\n'
    assert points(body) == [
        Point(
            "cpu",
            {"cpu": "cpu0", "host": "a"},
            {"usage": 1.5, "n": 3, "big": 2**64 - 1, "up": True, "note": "x y"},
            1_700_000_000_000,
            1,
            True,
        )
    ]


@pytest.mark.parametrize(
    ("precision", "sent", "milliseconds"),
    [
        ("ns", 1_700_000_000_123_000_000, 1_700_000_000_123),
        ("n", 1_700_000_000_123_500_000, 1_700_000_000_123.5),
        ("us", 1_700_000_000_123_000, 1_700_000_000_123),
        ("u", 1_700_000_000_123_000, 1_700_000_000_123),
        ("ms", 1_700_000_000_123, 1_700_000_000_123),
        ("s", 1_700_000_000, 1_700_000_000_000),
        ("s", -1, -1000),
    ],
)
def test_precision(precision: str, sent: int, milliseconds: float) -> None:
    [point] = points(b"m f=1 %d" % sent, precision=precision)
    assert point.time == milliseconds
    assert type(point.time) is type(milliseconds)


def test_an_unknown_precision_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UnknownPrecision, match="'hours' is unknown; use ns, us, ms or s"):
        parse(b"", arrival=ARRIVAL, precision="hours")


def test_a_time_in_the_wrong_precision_is_an_error_of_its_line() -> None:
    assert errors(b"m f=1 1700000000000000000", precision="s") == [
        "line 1: time 1700000000000000000 is out of range; is the precision right?"
    ]


def test_points_without_time_get_the_arrival() -> None:
    assert [(point.time, point.timed) for point in points(b"m f=1\nm f=2 5000000")] == [(ARRIVAL, False), (5, True)]


def test_comments_blank_lines_and_crlf_count_as_lines_and_give_nothing() -> None:
    body = b"# comment\r\n\r\n\n  \nm f=1\r\n # another\nm f=2 1000000\r\n"
    assert [(point.line, point.fields["f"]) for point in points(body)] == [(5, 1), (7, 2)]


def test_a_byte_order_mark_is_no_part_of_the_measurement() -> None:
    assert points(b"\xef\xbb\xbfm f=1")[0].measurement == "m"


def test_bad_lines_say_where_and_why_and_every_good_line_is_kept() -> None:
    body = b'm f=1\nno fields\nm f=2\nm f=abc\nm f="\xff"\n,\nm f=3'
    assert [point.fields["f"] for point in parse(body, arrival=ARRIVAL) if isinstance(point, Point)] == [1, 2, 3]
    assert errors(body) == [
        "line 2: cannot parse key of field in 'no fields'",
        "line 4: cannot parse type of field value in 'm f=abc'",
        "line 5: not UTF-8: byte 0xff at column 6",
        "line 6: cannot parse measurement in ','",
    ]


def test_an_error_is_one_line_whatever_was_sent() -> None:
    [error] = errors(b'm f="a\rb\x1b[31m\xe2\x80\xa8' + b"x" * 500)
    assert len(error) < 200
    assert error.isprintable()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'm f="a\nb" 5000000', [{"f": "a\nb"}]),
        (b'm f="a\r\nb"\r\nm g=1', [{"f": "a\r\nb"}, {"g": 1}]),
        (b'm f="a\n\n\nb"', [{"f": "a\n\n\nb"}]),
        (b'm f="a\n# no comment\nb"', [{"f": "a\n# no comment\nb"}]),
        (b'm f="a\\"\n\\"b",g="c\nd"', [{"f": 'a"\n"b', "g": "c\nd"}]),
        (b'm f="a\\\\\nb"', [{"f": "a\\\nb"}]),
        (b'm,a="x f=1\nm,a=y" f=2', [{"f": 1}, {"f": 2}]),
        (b'm f="m f=1\nm f=2"', [{"f": "m f=1\nm f=2"}]),
    ],
)
def test_newlines_in_string_fields(body: bytes, found: list[dict[str, object]]) -> None:
    assert [point.fields for point in points(body)] == found


def test_a_string_that_is_never_closed_costs_only_its_own_line() -> None:
    body = b'm f="open\nm f=1\nm f=2\n'
    found = list(parse(body, arrival=ARRIVAL))
    assert [each.line for each in found] == [1, 2, 3]
    assert [isinstance(each, Point) for each in found] == [False, True, True]


def test_limits_of_line_length_and_tags() -> None:
    many = b"m," + b",".join(b"t%d=1" % number for number in range(5)) + b" f=1,g=2,h=3"
    assert errors(many, tags=4) == ["line 1: more than 4 tags"]
    assert errors(many, tags=5) == []
    assert errors(b"m f=1," + b",".join(b"f%d=1" % number for number in range(99)), tags=4) == []
    assert errors(b"m,a=x\\,y\\,z f=1", tags=1) == []
    assert errors(many, line_bytes=20) == ["line 1: longer than 20 bytes; send fewer fields a line"]
    assert errors(b'm f="' + b"x" * 10 + b"\n" + b"y" * 10 + b'"', line_bytes=20)[0].startswith("line 1: cannot parse")


@pytest.mark.parametrize(
    "body",
    [
        b'm,a=" f="x\n' * 60_000,
        b'm f="\n' * 100_000,
        b'm f="x' + b"\n" * 1_000_000,
        (b'm f="x' + b"\ny" * 30_000 + b"\n") * 20,
        b"m," + b",".join(b"t%d=1" % number for number in range(9_000)) + b" f=1",
    ],
    ids=["strings that go on for ever", "open strings", "one open string", "long open strings", "many tags"],
)
def test_hostile_bodies_take_time_in_proportion_to_their_size(body: bytes) -> None:
    before = time.process_time()
    assert list(parse(body, arrival=ARRIVAL))
    assert time.process_time() - before < 10


def test_invalid_utf8_in_a_string_does_not_kill_the_process() -> None:
    program = """
from livechannels.push.line_protocol import parse
for body in b'm f="\\xff"', b'm f="a\\n\\xff"', b"m,t=\\xff f=1", b"\\xff f=1", b'm f="\\xed\\xa0\\x80"':
    print(*parse(body, arrival=0), sep="\\n")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("not UTF-8: byte 0x") == 5
    assert run.stdout.count("cannot parse value of field") == 1


text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\\ufeff"), min_size=1, max_size=8)
names = text.filter(lambda name: not name.startswith(("#", " ")))
strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.text(
    '"\\\n=, x', max_size=12
)
numbers = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
field_values = numbers | st.integers(-(2**63), 2**63 - 1) | st.booleans() | strings
lines = st.tuples(
    names,
    st.dictionaries(names, text, max_size=3),
    st.dictionaries(names, field_values, min_size=1, max_size=4),
    st.none() | st.integers(-(10**18), 2 * 10**18),
)


def escaped(name: str, special: str) -> str:
    return "".join("\\" + char if char in special else char for char in name)


def written(value: object) -> str:
    if isinstance(value, str):
        return '"' + escaped(value, '"\\') + '"'
    return f"{value}i" if type(value) is int else str(value)


def line_of(measurement: str, tags: dict[str, str], fields: dict[str, object], moment: int | None) -> str:
    head = ",".join(
        [
            escaped(measurement, ", "),
            *(f"{escaped(key, ', =')}={escaped(value, ', =')}" for key, value in tags.items()),
        ]
    )
    body = ",".join(f"{escaped(key, ', =')}={written(value)}" for key, value in fields.items())
    return f"{head} {body}" + ("" if moment is None else f" {moment}")


@given(st.lists(lines, max_size=5))
def test_whatever_was_written_is_read(sent: list[tuple[str, dict[str, str], dict[str, object], int | None]]) -> None:
    read = points("\n".join(line_of(*each) for each in sent).encode())
    assert [(point.measurement, point.tags, point.fields, point.timed) for point in read] == [
        (measurement, tags, fields, moment is not None) for measurement, tags, fields, moment in sent
    ]
    for point, (*_, moment) in zip(read, sent, strict=True):
        assert point.time == (ARRIVAL if moment is None else pytest.approx(moment / 1e6, abs=1e-3))


fragments = st.sampled_from(
    [b'm f="', b'"', b"\n", b"\\", b"m f=1", b",", b"=", b" ", b"#", b"\xff", b"\r", b"1i", b"m,t=a ", b"\0"]
)


@given(st.lists(fragments | st.binary(max_size=4), max_size=30))
def test_any_bytes_give_points_or_errors_with_rising_line_numbers(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    found = list(parse(body, arrival=ARRIVAL, line_bytes=64, tags=2))
    numbers = [each.line for each in found]
    assert numbers == sorted(set(numbers))
    assert all(1 <= number <= body.count(b"\n") + 1 for number in numbers)


@given(st.lists(st.sampled_from(["good", "bad", "open", "blank"]), max_size=30))
def test_no_bad_line_takes_a_good_one_with_it(kinds: list[str]) -> None:
    texts = {"good": "m f=1 1", "bad": "m f=", "open": "m,x f='", "blank": ""}
    found = list(parse("\n".join(texts[kind] for kind in kinds).encode(), arrival=ARRIVAL))
    assert [each.line for each in found if isinstance(each, Point)] == [
        number for number, kind in enumerate(kinds, 1) if kind == "good"
    ]
    assert len(found) == sum(kind != "blank" for kind in kinds)
