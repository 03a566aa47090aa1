from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import pytest

from livechannels.exceptions import ConfigurationError
from livechannels.serializers import Codec, registry

MESSAGE = {"type": "chat.message", "n": 7, "x": 1.5, "ok": True, "none": None, "list": [1, "ü"], "deep": {"a": {}}}


@pytest.mark.parametrize("name", ["msgpack", "json"])
class TestSerializers:
    def test_round_trip(self, name):
        codec = Codec(name)
        raw = codec.dumps(MESSAGE)
        assert isinstance(raw, bytes) and codec.loads(raw) == MESSAGE

    def test_bytes(self, name):
        codec, message = Codec(name), {"type": "x", "raw": bytes(range(256)), "in": [b"", {"a": b"\xff"}]}
        assert codec.loads(codec.dumps(message)) == message

    def test_what_cannot_be_carried(self, name):
        with pytest.raises((TypeError, ValueError)):
            Codec(name).dumps({"type": "x", "what": object()})

    def test_each_read_is_a_message_of_its_own(self, name):
        codec = Codec(name)
        raw = codec.dumps(MESSAGE)
        codec.loads(raw)["list"].append("mine")
        assert codec.loads(raw) == MESSAGE

    def test_large_integers(self, name):
        codec = Codec(name)
        assert codec.loads(codec.dumps({"n": 2**63})) == {"n": 2**63}


def test_json_reads_what_looks_like_bytes_only_alone():
    codec = Codec("json")
    assert codec.loads(b'{"a":{"__bytes__":"eA==","b":1}}') == {"a": {"__bytes__": "eA==", "b": 1}}


class TestRegistry:
    @pytest.fixture
    def reversing(self) -> Iterator[str]:
        registry.register("reversing", lambda text: text.encode()[::-1], lambda raw: raw[::-1].decode())
        yield "reversing"
        del registry._known["reversing"]

    def test_a_registered_serializer(self, reversing):
        codec = Codec(reversing)
        assert codec.dumps("abc") == b"cba" and codec.loads(b"cba") == "abc"

    def test_an_unknown_one_names_the_known_and_the_remedy(self, reversing):
        with pytest.raises(ConfigurationError, match=r"'yaml' is not registered; known are json, msgpack, reversing.*"
                           r"registry\.register\(name, dumps, loads\)") as caught:  # fmt: skip
            Codec("yaml")
        assert caught.value.check_id == "livechannels.E005"


class TestEncryption:
    def test_without_keys_nothing_changes(self):
        codec = Codec()
        assert codec.seal(b"x") == b"x" and codec.unseal(b"x") == b"x"

    def test_sealed_text_is_unreadable_and_fresh_each_time(self):
        codec = Codec(keys=["key"])
        first, second = codec.seal(b"hello world"), codec.seal(b"hello world")
        assert b"hello" not in first and first != second
        assert codec.unseal(first) == codec.unseal(second) == b"hello world"

    def test_text_and_bytes_are_one_key(self):
        assert Codec(keys=[b"key"]).unseal(Codec(keys=["key"]).seal(b"x")) == b"x"

    def test_keys_are_rotated(self):
        """The first key encrypts, all decrypt."""
        old, both, new = Codec(keys=["old"]), Codec(keys=["new", "old"]), Codec(keys=["new"])
        assert both.unseal(old.seal(b"x")) == b"x" and new.unseal(both.seal(b"x")) == b"x"
        with pytest.raises(ValueError):
            old.unseal(both.seal(b"x"))

    @pytest.mark.parametrize(
        "token", [b"", b"plain", Codec(keys=["other"]).seal(b"x")], ids=["empty", "plain", "other"]
    )
    def test_a_wrong_key(self, token):
        with pytest.raises(ValueError, match="no key in symmetric_encryption_keys opens this message"):
            Codec(keys=["key"]).unseal(token)

    def test_a_changed_message(self):
        codec = Codec(keys=["key"])
        token = bytearray(codec.seal(b"x" * 20))
        token[math.floor(len(token) / 2)] ^= 1
        with pytest.raises(ValueError):
            codec.unseal(bytes(token))

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
        with pytest.raises(ConfigurationError, match=r"pip install \"livechannels\[crypto\]\""):
            Codec(keys=["key"])
        Codec()
