from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from livechannels.clients.backlog import BYTES_PER_FRAME, MESSAGES_PER_FRAME, Backlog, Joiner

LINES = Joiner(b"\n")


def taken(backlog: Backlog) -> list[str]:
    frames = []
    while backlog:
        frames.append(backlog.take().text)
    return frames


class TestFrames:
    def test_several_messages_to_a_frame(self) -> None:
        backlog = Backlog(10_000, LINES)
        for number in range(MESSAGES_PER_FRAME + 1):
            assert backlog.put(b"%d" % number)
        frame = backlog.take()
        assert (frame.messages, frame.text) == (16, "\n".join(map(str, range(16))))
        assert taken(backlog) == ["16"]
        assert backlog.size == 0

    def test_a_frame_is_bounded_in_bytes_but_has_a_message(self) -> None:
        backlog = Backlog(10**7, LINES)
        for size in (BYTES_PER_FRAME - 10, 20, BYTES_PER_FRAME * 2, 5):
            backlog.put(b"x" * size)
        assert list(map(len, taken(backlog))) == [BYTES_PER_FRAME - 10, 20, BYTES_PER_FRAME * 2, 5]

    def test_the_same_messages_are_joined_once(self) -> None:
        first, second = Backlog(100, LINES), Backlog(100, LINES)
        messages = [b"one", b"two"]
        for message in messages:
            first.put(message)
            second.put(message)
        assert first.take().text is second.take().text

    @given(st.lists(st.binary(max_size=5).map(bytes.hex).map(str.encode), max_size=60))
    def test_nothing_is_lost_or_reordered(self, messages: list[bytes]) -> None:
        backlog = Backlog(10**6, LINES)
        for message in messages:
            backlog.put(message)
        assert "\n".join(taken(backlog)) == b"\n".join(messages).decode()
        assert backlog.size == 0


class TestLimit:
    def test_over_the_limit(self) -> None:
        backlog = Backlog(5, LINES)
        assert backlog.put(b"12345")
        assert not backlog.put(b"6")

    def test_only_the_newest_of_each_key_stays(self) -> None:
        before = Backlog.coalesced
        backlog = Backlog(8, LINES)
        for message, key in ((b"a1", "a"), (b"b1", "b"), (b"--", None), (b"a2", "a"), (b"a3", "a")):
            assert backlog.put(message, key)
        assert taken(backlog) == ["b1\n--\na3"]
        assert Backlog.coalesced - before == 2
        assert backlog.size == 0

    def test_coalescing_may_not_be_enough(self) -> None:
        backlog = Backlog(3, LINES)
        assert backlog.put(b"12", None)
        assert not backlog.put(b"34", "a")
        backlog.clear()
        assert not backlog and backlog.size == 0
