"""Consumers of one message: what one does to its own never shows in another's, at any depth."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from livechannels.node.isolation import Message, Shared

PLAIN = {
    "type": "chat.message",
    "text": "hello",
    "payload": {"rows": [{"x": 1, "labels": {"host": "a"}}], "meta": {"tags": ["b"]}},
    "list": [[1], {"y": 2}],
}


@pytest.fixture
def shared() -> Shared:
    return Shared(msgspec.msgpack.encode(PLAIN), msgspec.msgpack.decode)


def deep_edit(message: dict[str, Any]) -> None:
    message["payload"]["rows"][0]["labels"]["host"] = "edited"
    message["payload"]["rows"].append("edited")
    message["payload"]["meta"]["tags"].clear()
    message["list"][0].append("edited")


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "[]": deep_edit,
    "get": lambda message: message.get("payload")["rows"].clear(),
    "items": lambda message: [value.clear() for _, value in message.items() if isinstance(value, (dict, list))],
    "values": lambda message: [value.clear() for value in message.values() if isinstance(value, (dict, list))],
    "pop": lambda message: message.pop("payload")["meta"].clear(),
    "popitem": lambda message: message.popitem()[1][1].clear(),
    "setdefault": lambda message: message.setdefault("payload", {})["meta"].clear(),
    "copy": lambda message: deep_edit(message.copy()),
    "copy.copy": lambda message: deep_edit(copy.copy(message)),
    "dict()": lambda message: deep_edit(dict(message)),
    "update": lambda message: (plain := {}, plain.update(message), deep_edit(plain)),
    "** to a dict": lambda message: deep_edit({**message}),
    "** to a function": lambda message: (lambda **given: deep_edit(given))(**message),
    "|": lambda message: deep_edit(message | {"more": 1}),
    "| from the right": lambda message: deep_edit({"more": 1} | message),
    "top level": lambda message: (message.update(text="edited"), message.__delitem__("list"), message.clear()),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=list(EDITS))
def test_an_edit_stays_with_who_made_it(shared: Shared, edit: Callable[[dict[str, Any]], Any]) -> None:
    first, second = shared.message(), shared.message()
    edit(first)
    assert second == PLAIN and shared.message() == PLAIN
    deep_edit(second)
    assert shared.message() == PLAIN


def test_an_edit_by_match_stays_with_who_made_it(shared: Shared) -> None:
    match shared.message():
        case {"payload": {"meta": meta}, **rest}:
            meta.clear()
            rest["list"].clear()
    assert shared.message() == PLAIN


def test_it_is_a_dict_to_everybody(shared: Shared) -> None:
    message = shared.message()
    assert isinstance(message, dict) and message == PLAIN and message == PLAIN and repr(message) == repr(PLAIN)
    assert list(message) == list(message.keys()) == list(PLAIN) and len(message) == 4 and "list" in message
    assert message["type"] == message.get("type") == "chat.message" and message.get("none", 7) == 7
    with pytest.raises(KeyError):
        message["none"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message)) == PLAIN
    assert msgspec.json.decode(msgspec.json.encode(message)) == PLAIN
    assert json.loads(json.dumps(message)) == PLAIN
    for made in (copy.deepcopy(message), pickle.loads(pickle.dumps(message)), message.copy()):
        assert type(made) is dict and made == PLAIN
    assert all(type(message[key]) is type(PLAIN[key]) for key in PLAIN)


def test_what_a_consumer_wrote_is_not_overwritten_by_what_it_reads(shared: Shared) -> None:
    message = shared.message()
    message["payload"], message["text"] = {"mine": [1]}, ["mine"]
    del message["type"]
    assert message["list"] == PLAIN["list"]
    assert message == {"text": ["mine"], "payload": {"mine": [1]}, "list": PLAIN["list"]}


def test_it_is_decoded_once_however_many_only_look_at_the_surface() -> None:
    decoded: list[bytes] = []

    def loads(body: bytes) -> Any:
        decoded.append(body)
        return msgspec.json.decode(body)

    shared = Shared(b'{"type":"t","nested":{"x":[1]}}', loads)
    messages = [shared.message() for _ in range(5)]
    assert [message["type"] for message in messages] == ["t"] * 5 and len(decoded) == 1
    messages[0]["nested"]["x"].append(messages[0].pop("type"))
    assert len(decoded) == 2 and messages[1]["nested"] == {"x": [1]} and len(decoded) == 3


def test_a_flat_message_is_a_plain_copy() -> None:
    shared = Shared(b'{"type":"t","n":1,"x":null}', msgspec.json.decode)
    first, second = shared.message(), shared.message()
    assert type(first) is dict and first is not second
    first["n"] = 2
    assert second == shared.message() == {"type": "t", "n": 1, "x": None}


def test_code_that_reads_the_storage_cannot_change_what_is_shared(shared: Shared) -> None:
    """As compiled extensions do, and `dict`'s own methods."""
    message = shared.message()
    payload, listed = dict.__getitem__(message, "payload"), dict.get(message, "list")
    for edit in (
        lambda: payload.update(x=1),
        lambda: payload["rows"].append(1),
        lambda: payload["rows"][0]["labels"].clear(),
        lambda: listed.__setitem__(0, 1),
        lambda: listed[1].pop("y"),
    ):
        with pytest.raises(TypeError, match="shared"):
            edit()
    assert type(copy.deepcopy(payload)) is dict and copy.deepcopy(listed) == PLAIN["list"]
    assert message == shared.message() == PLAIN


@pytest.mark.parametrize("value", [[1], "text", None, Message])
def test_what_is_no_dict_is_decoded_for_each(value: Any) -> None:
    shared = Shared(b"", lambda body: copy.copy(value))
    assert [shared.message(), shared.message()] == [value, value]
    assert shared.message() is not value or not isinstance(value, list)


def test_values_of_a_serializer_of_ones_own_are_isolated_too() -> None:
    shared = Shared(b"", lambda body: {"type": "t", "tags": {1, 2}})
    shared.message()["tags"].add(3)
    assert shared.message() == {"type": "t", "tags": {1, 2}}


def test_one_that_code_makes_by_the_class_of_another(shared: Shared) -> None:
    made = type(shared.message())(t=1, u=[2])
    assert made == {"t": 1, "u": [2]} and made.get("t") == made["t"] == 1 and made.copy() == made
    assert dict(made) == {**made} == made
    assert type(shared.message().fromkeys(["a"], 1)) is dict
    with pytest.raises(AttributeError):
        _ = shared.message().nothing
