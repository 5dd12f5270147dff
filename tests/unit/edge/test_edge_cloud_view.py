"""What an agent takes from its registration, whichever version the cloud has."""

from __future__ import annotations

import pytest
from scout.v1 import control_pb2, types_pb2

from edge_agent.cloud_view import CloudView, view_of
from scout_core.control.cost import Stage
from scout_core.errors import RemoteProtocolError
from scout_core.protocol.actions import SendChunk
from scout_core.rpc.chunk_wire import encode_chunk
from scout_core.rpc.options import LEAST_MESSAGE_BYTES, MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES

CONFIGURED = 512 * 1024


def registered(largest_message_bytes: int = 0) -> CloudView:
    model = types_pb2.Model(layers=1, kv_heads=1, head_dim=8)
    return view_of(control_pb2.Registered(model=model, largest_message_bytes=largest_message_bytes))


def test_a_cloud_that_names_no_limit_takes_chunks_as_configured() -> None:
    view = registered()
    assert view.largest_message_bytes == MAX_MESSAGE_BYTES
    assert view.chunk_bytes(CONFIGURED) == CONFIGURED


@pytest.mark.parametrize("limit_bytes", [LEAST_MESSAGE_BYTES, 20_480, 262_144])
def test_a_chunk_at_any_offset_fits_what_the_cloud_takes(limit_bytes: int) -> None:
    size = registered(largest_message_bytes=limit_bytes).chunk_bytes(CONFIGURED)
    chunk = SendChunk(2**64 - 1, bytes(size), 2**64 - 1)
    assert limit_bytes - 64 <= len(encode_chunk(chunk)) <= limit_bytes


def test_the_clouds_limit_never_makes_chunks_larger() -> None:
    view = registered(largest_message_bytes=2**32 - 1)
    assert view.largest_message_bytes == MAX_MESSAGE_BYTES
    assert view.chunk_bytes(4_096) == 4_096
    assert view.chunk_bytes(2**30) == MAX_CHUNK_BYTES


def test_a_cloud_that_takes_next_to_nothing_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="largest_message_bytes"):
        registered(largest_message_bytes=LEAST_MESSAGE_BYTES - 1)


def test_costs_of_stages_that_this_version_does_not_know_are_passed_over() -> None:
    known = types_pb2.StageCost(stage=Stage.CLOUD_PREFILL.value, base_s=1.0, samples=9)
    later = types_pb2.StageCost(stage="telepathy", base_s=9.0, samples=9)
    model = types_pb2.Model(layers=1, kv_heads=1, head_dim=8)
    view = view_of(control_pb2.Registered(model=model, costs=[later, known]))
    assert view.costs.predict(Stage.CLOUD_PREFILL, 0) == pytest.approx(1.0, rel=0.5)
