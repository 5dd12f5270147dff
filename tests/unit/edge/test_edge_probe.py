"""How a probe of the link is cut into messages."""

from __future__ import annotations

import pytest

from edge_agent.attachment import TimedProbe, probe_of


@pytest.mark.parametrize(
    ("size_bytes", "chunk_bytes", "probe"),
    [
        (65_536, 524_288, TimedProbe(4, 16_384)),
        (1_000, 524_288, TimedProbe(2, 16_384)),
        (16_384, 4_096, TimedProbe(4, 4_096)),
    ],
)
def test_a_probe_has_no_larger_messages_than_the_payload(
    size_bytes: int, chunk_bytes: int, probe: TimedProbe
) -> None:
    assert probe_of(size_bytes, chunk_bytes) == probe


def test_what_arrives_first_is_not_measured() -> None:
    assert TimedProbe(4, 4_096).measured_bytes == 12_288
