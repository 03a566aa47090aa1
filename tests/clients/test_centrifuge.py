from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livechannels.clients import centrifuge as protocol
from livechannels.messages import codes
from livechannels.messages.publications import ClientInfo, Publication, encode_body


def parse(frame: str | bytes) -> list[tuple[int, str]]:
    return [(command.id, command.method) for command in protocol.parse_frame(frame)]


class TestCommands:
    def test_several_to_a_frame_in_order(self) -> None:
        frame = '{"id":1,"connect":{}}\n{"subscribe":{"channel":"a"},"id":2}\n{"send":{"data":1}}\n{}'
        assert parse(frame) == [(1, "connect"), (2, "subscribe"), (0, "send"), (0, "")]

    def test_one_newline_at_the_end_is_allowed_and_bytes_too(self) -> None:
        assert parse(b'{"id":1,"rpc":{}}\n') == [(1, "rpc")]

    def test_the_first_request_wins(self) -> None:
        assert parse('{"id":1,"publish":{},"subscribe":{}}') == [(1, "subscribe")]

    def test_unknown_fields_are_ignored(self) -> None:
        assert parse('{"id":1,"subscribe":{"channel":"a","new":{"x":[1]}},"other":1}') == [(1, "subscribe")]

    @pytest.mark.parametrize(
        "frame",
        [
            "", "\n", "{}\n\n", " ", "x", "[]", "null", '"a"', "1", "{", '{"id":1}', '{"id":1,"ping":{}}',
            '{"id":-1,"rpc":{}}', '{"id":1.5,"rpc":{}}', '{"id":4294967296,"rpc":{}}', '{"id":"1","rpc":{}}',
            '{"connect":{}}', '{"id":1,"subscribe":[]}', '{"id":1,"subscribe":{"channel":1}}',
            '{"id":1,"subscribe":{"offset":-1}}', '{"id":1,"history":{"limit":"x"}}', "[" * 100_000,
            '{"id":1,"rpc":{"data":' + "[" * 100_000, '{"id":1,"rpc":{"data":"\ud800"}}', b"\xff\xfe",
            b'{"id":1,"rpc":{"data":"\xff"}}', b"",
        ],
    )  # fmt: skip
    def test_what_is_no_command_is_a_bad_frame(self, frame: str | bytes) -> None:
        with pytest.raises(protocol.BadFrame):
            parse(frame)

    def test_commands_before_a_bad_line_are_carried_out(self) -> None:
        commands = protocol.parse_frame('{"id":1,"rpc":{}}\nx')
        assert next(commands).id == 1
        with pytest.raises(protocol.BadFrame):
            next(commands)

    def test_flag_bit_two(self) -> None:
        (command,) = protocol.parse_frame('{"id":1,"subscribe":{"channel":"a","flag":3}}')
        assert command.subscribe is not None and command.subscribe.reject_unrecovered

    def test_pong(self) -> None:
        assert protocol.is_pong("{}")
        assert not protocol.is_pong('{"id":1}')

    @given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str)))
    def test_any_input_is_commands_or_a_bad_frame(self, frame: str | bytes) -> None:
        try:
            parse(frame)
        except protocol.BadFrame:
            pass

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
    names = st.sampled_from([*protocol.Command.__struct_fields__, "channel", "data", "ping"])

    @given(st.dictionaries(names, st.one_of(json_values, st.dictionaries(names, json_values, max_size=4)), max_size=4))
    def test_nearly_right_commands_too(self, command: dict[str, Any]) -> None:
        try:
            parse(json.dumps(command))
        except protocol.BadFrame:
            pass


class TestData:
    def test_absent_is_none(self) -> None:
        (command,) = protocol.parse_frame('{"id":1,"rpc":{"method":"m"}}')
        assert command.rpc is not None and protocol.decode_data(command.rpc.data) is None

    def test_a_number_out_of_range_is_error_107(self) -> None:
        with pytest.raises(protocol.CommandFailed) as failed:
            protocol.decode_data(msgspec.Raw(b"1e999"))
        assert failed.value.error == codes.BAD_REQUEST


class TestReplies:
    def test_an_empty_result_is_there(self) -> None:
        assert protocol.encode_reply(3, "publish", protocol.Empty()) == b'{"id":3,"publish":{}}'
        assert protocol.encode_reply(3, "subscribe", protocol.SubscribeResult()) == b'{"id":3,"subscribe":{}}'

    def test_errors_say_if_they_are_temporary(self) -> None:
        permanent = json.loads(protocol.encode_error(3, codes.PERMISSION_DENIED))
        assert permanent == {"id": 3, "error": {"code": 103, "message": "permission denied"}}
        assert json.loads(protocol.encode_error(3, codes.INTERNAL))["error"]["temporary"] is True

    def test_no_reply_breaks_its_line(self) -> None:
        publication = Publication("a", b'{"data":{\n"x":\r\n1}}', 1, "e", 5)
        result = protocol.SubscribeResult(publications=[protocol.publication_result(publication)])
        reply = protocol.encode_reply(1, "subscribe", result)
        assert b"\n" not in reply and b"\r" not in reply
        assert json.loads(reply)["subscribe"]["publications"] == [{"offset": 1, "time": 5, "data": {"x": 1}}]

    def test_rpc_data_json_cannot_carry(self) -> None:
        with pytest.raises(TypeError):
            protocol.encode_reply(1, "rpc", protocol.RPCResult(object()))


class TestPushes:
    def test_publication(self) -> None:
        body = encode_body({"text": "a\nb"}, tags={"k": "v"}, info=ClientInfo("7", "c"))
        publication = Publication("a/b", body, 12, "E", 99)
        push = publication.encoded(protocol.publication_push)
        assert json.loads(push) == {
            "push": {
                "channel": "a/b",
                "pub": {
                    "offset": 12, "time": 99, "data": {"text": "a\nb"}, "tags": {"k": "v"},
                    "info": {"user": "7", "client": "c"},
                },
            }
        }  # fmt: skip
        assert publication.encoded(protocol.publication_push) is push

    def test_without_history_there_is_no_offset(self) -> None:
        push = protocol.publication_push(Publication("a", encode_body(1)))
        assert json.loads(push) == {"push": {"channel": "a", "pub": {"data": 1}}}

    def test_the_others(self) -> None:
        info = ClientInfo("7", "c").to_json()
        assert json.loads(protocol.join_push("a", info))["push"]["join"] == {"info": {"user": "7", "client": "c"}}
        assert json.loads(protocol.leave_push("a", info))["push"]["leave"] == {"info": {"user": "7", "client": "c"}}
        unsubscribe = json.loads(protocol.unsubscribe_push("a", codes.UNSUBSCRIBED_INSUFFICIENT))["push"]
        assert unsubscribe == {"channel": "a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
        disconnect = json.loads(protocol.disconnect_push(codes.SLOW))["push"]["disconnect"]
        assert disconnect == {"code": 3008, "reason": "slow", "reconnect": True}
        assert json.loads(protocol.message_push([1])) == {"push": {"message": {"data": [1]}}}


class TestCodes:
    @pytest.mark.parametrize(
        ("code", "reconnect"),
        [(3000, True), (3499, True), (3500, False), (3999, False), (4000, True), (4499, True), (4500, False),
         (4999, False), (5000, True)],
    )  # fmt: skip
    def test_which_codes_come_back(self, code: int, reconnect: bool) -> None:
        assert codes.Disconnect(code, "x").reconnect is reconnect

    def test_reasons_fit_a_close_frame_and_are_no_json(self) -> None:
        found = [value for value in vars(codes).values() if isinstance(value, codes.Disconnect)]
        assert len({disconnect.code for disconnect in found}) == len(found) > 15
        for disconnect in found:
            assert 0 < len(disconnect.reason.encode()) <= 123
            with pytest.raises(ValueError):
                json.loads(disconnect.reason)

    def test_every_error_code_is_there(self) -> None:
        errors = {value.code for value in vars(codes).values() if isinstance(value, codes.Error)}
        assert errors == set(range(100, 114))
