"""A share of a scheduled uplink, and the offers it is chosen from, on the wire."""

from __future__ import annotations

import pytest

from scout_core.modes import Execution, Mode
from scout_core.protocol import actions, events
from scout_core.protocol.opening import ContextState, UplinkShare
from scout_core.rpc.session_wire import decode_cloud, encode_cloud


@pytest.mark.parametrize(
    "share",
    [
        None,
        UplinkShare(0.0, Mode.KV_INT4, 1.0),
        UplinkShare(1.5e6, Mode.SCOUT, 0.25, Execution.SPARSE),
    ],
)
def test_a_share_arrives_as_it_was_sent_and_none_stays_none(share: UplinkShare | None) -> None:
    message = encode_cloud(actions.SendAccepted(ContextState.TOKENS, 0, 7, 0.5, share))
    assert decode_cloud(message) == (events.Accepted(ContextState.TOKENS, 0, 7, 0.5, share),)
