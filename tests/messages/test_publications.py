from __future__ import annotations

import logging

import pytest

from livechannels.messages.positions import Entry, Position
from livechannels.messages.publications import ClientInfo, Publication, encode_body, readable

INFO = ClientInfo("7", "c1", chan_info={"a": 1})


def test_a_body_is_data_first_and_only_what_is_there():
    assert encode_body({"a": 1}) == b'{"data":{"a":1}}'
    assert encode_body(raw=b"[1, 2]", tags={"k": "v"}) == b'{"data":[1, 2],"tags":{"k":"v"}}'
    with pytest.raises(TypeError):
        encode_body(object())


def test_a_publication_is_read_back():
    publication = Publication("cpu", encode_body([1], tags={"k": "v"}, info=INFO), 3, "e", 99)
    assert (publication.data, publication.raw, publication.tags, publication.info) == ([1], b"[1]", {"k": "v"}, INFO)
    assert publication.position == Position("e", 3) and repr(publication) == "<Publication cpu e:3>"
    publication.data.append(2)
    assert publication.data == [1]


def test_it_is_encoded_once_per_encoder():
    calls = []
    publication = Publication("cpu", encode_body(1))

    def encoder(found: Publication) -> bytes:
        calls.append(found)
        return b"wire"

    assert [publication.encoded(encoder), publication.encoded(encoder)] == [b"wire"] * 2
    assert calls == [publication] and publication.encoded(lambda found: b"other") == b"other"


def test_client_info_round_trip():
    assert INFO.to_json() == b'{"user":"7","client":"c1","chan_info":{"a":1}}'
    assert ClientInfo.from_json(INFO.to_json()) == INFO
    assert ClientInfo.from_json(b"{}") == ClientInfo()


def test_what_cannot_be_read_is_skipped(caplog):
    def unseal(raw: bytes) -> bytes:
        if raw == b"sealed":
            raise ValueError("no key")
        return raw

    bodies = [encode_body(1), b"sealed", b"\x00new", encode_body(2)]
    entries = [Entry(number, 5, body) for number, body in enumerate(bodies, 1)]
    with caplog.at_level(logging.WARNING):
        found = readable("cpu", entries, "e", unseal)
    assert [(one.offset, one.data, one.epoch, one.time) for one in found] == [(1, 1, "e", 5), (4, 2, "e", 5)]
    assert len(caplog.records) == 2
