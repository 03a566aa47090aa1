from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livechannels.push.body import Body, BodyTooLarge, BrokenBody, UnknownEncoding

PLAIN = b"cpu usage=1 1700000000000000000\n" * 100


def read(data: bytes, encoding: str, step: int = 7, *, limit: int = 10_000, sent_limit: int = 5_000) -> bytes:
    body = Body(encoding, limit=limit, sent_limit=sent_limit)
    for start in range(0, len(data), step):
        body.feed(data[start : start + step])
    return body.finish()


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_plain(encoding: str) -> None:
    assert read(PLAIN, encoding) == PLAIN


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_gzip(encoding: str, step: int) -> None:
    assert read(gzip.compress(PLAIN), encoding, step) == PLAIN


def test_an_empty_body_is_empty_in_any_encoding() -> None:
    assert read(b"", "gzip") == read(b"", "") == read(gzip.compress(b""), "gzip") == b""


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "x" * 1000])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(UnknownEncoding) as caught:
        Body(encoding, limit=1, sent_limit=1)
    assert "use gzip or identity" in str(caught.value)
    assert len(str(caught.value)) < 120


def test_limits_are_exact() -> None:
    packed = gzip.compress(PLAIN)
    assert read(PLAIN, "", limit=len(PLAIN), sent_limit=1) == PLAIN
    assert read(packed, "gzip", limit=len(PLAIN), sent_limit=len(packed)) == PLAIN
    for data, encoding, limit, sent_limit in [
        (PLAIN, "", len(PLAIN) - 1, 10_000),
        (packed, "gzip", len(PLAIN) - 1, 10_000),
        (packed, "gzip", len(PLAIN), len(packed) - 1),
    ]:
        for step in (7, 100_000):
            with pytest.raises(BodyTooLarge):
                read(data, encoding, step, limit=limit, sent_limit=sent_limit)


def test_an_announced_length_over_the_limit_is_refused_before_reading() -> None:
    with pytest.raises(BodyTooLarge):
        Body("gzip", limit=100, sent_limit=10).expect(11)
    Body("gzip", limit=100, sent_limit=10).expect(10)
    Body("", limit=100, sent_limit=10).expect(100)


def test_a_bomb_is_stopped_before_it_takes_memory() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        read(bomb, "gzip", 65536, limit=1_000_000, sent_limit=1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(PLAIN) + gzip.compress(PLAIN),
        gzip.compress(PLAIN) + b"x",
        gzip.compress(PLAIN)[:-1],
        gzip.compress(PLAIN)[:5],
        PLAIN,
        zlib.compress(PLAIN),
        gzip.compress(PLAIN)[:-8] + bytes(8),
    ],
    ids=["two members", "trailing byte", "cut", "cut header", "plain", "zlib", "wrong checksum"],
)
@pytest.mark.parametrize("step", [1, 100_000])
def test_what_is_not_one_whole_gzip_member_is_refused(data: bytes, step: int) -> None:
    with pytest.raises(BrokenBody):
        read(data, "gzip", step)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(gzip.compress), st.integers(1, 50))
def test_any_bytes_are_read_or_refused(data: bytes, step: int) -> None:
    try:
        assert read(data, "gzip", step) == (gzip.decompress(data) if data else b"")
    except BrokenBody:
        pass
