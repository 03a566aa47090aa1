from __future__ import annotations

import pytest

from livechannels.engines.base import Fence, Grant
from livechannels.leadership.lease import Lease


def granted(*, sent: float = 100.0, remaining: float = 3.0, token: int | None = 7) -> Lease:
    return Lease.granted("s/x", "l/s/x", "me", Grant(token, "node", "me", remaining, 1.0), 3.0, sent)


def test_is_trusted_for_less_than_nine_tenths_counted_from_before_the_request():
    lease = granted()
    assert lease.deadline == pytest.approx(102.55)
    assert lease.trusted(102.5)
    assert not lease.trusted(102.6)


def test_a_grant_of_less_time_is_trusted_for_less():
    assert granted(remaining=1.0).deadline == pytest.approx(100.55)


def test_a_store_that_says_more_than_the_time_to_live_is_not_believed():
    assert granted(remaining=3600).deadline == pytest.approx(102.55)


def test_a_renewal_moves_the_deadline_forward_only():
    lease = granted()
    lease.renewed(101.0)
    lease.renewed(100.5)
    assert lease.deadline == pytest.approx(103.55)


def test_an_ended_lease_is_not_trusted():
    lease = granted()
    lease.ended = "released"
    assert not lease.trusted(100.0)


def test_proves_itself_by_session_and_token():
    assert granted().fence == Fence("me", 7)


def test_refuses_a_grant_to_somebody_else():
    with pytest.raises(ValueError, match="led by node"):
        granted(token=None)
