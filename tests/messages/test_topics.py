from __future__ import annotations

import pytest

from livechannels.exceptions import InvalidChannelName
from livechannels.messages import topics


@pytest.mark.parametrize("name", ["a", "stream/telegraf/cpu", "A-Za_z0.9:/=#@$,-", "x" * 255])
def test_a_legal_live_name(name):
    assert topics.check_live_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "has 0"), ("x" * 256, "has 256"), ("a b", "' ' is not"), ("a\n", r"'\\n' is not"), ("ü", "'ü'"),
     ("a!b", "'!'"), ("a*", r"'\*'"), (5, "not int"), (None, "not NoneType"), (b"a", "not bytes")],
)  # fmt: skip
def test_an_illegal_live_name(name, why):
    with pytest.raises(InvalidChannelName, match=why):
        topics.check_live_name(name)


def test_kinds_of_one_name_never_meet():
    kinds = [topics.group, topics.inbox, topics.queue, topics.live, topics.presence, topics.lock]
    fixed = [topics.CONTROL, topics.NODES, topics.CHANNELS, topics.STREAMS]
    names = {kind(name) for kind in kinds for name in ("a", "all", "nodes", "l/a")} | set(fixed)
    assert len(names) == 6 * 4 + 4
