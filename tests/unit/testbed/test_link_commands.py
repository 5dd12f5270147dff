"""Control lines: what is accepted, and that refusals name the field."""

from __future__ import annotations

import pytest

from scout_core.errors import SettingsError
from scout_core.testbed.commands import LinkCommand, parse_command


def test_fields_left_out_change_nothing() -> None:
    assert parse_command(b'{"up_mbps": 3}') == LinkCommand(up_mbps=3.0)
    assert parse_command(b'{"reset": true, "outage_s": 0.5}\n') == LinkCommand(
        reset=True, outage_s=0.5
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"rate 3", "Invalid JSON"),
        (b"[3]", "command"),
        (b"{}", "nothing asked"),
        (b'{"reset": false}', "nothing asked"),
        (b'{"rate": 3}', "rate: Extra inputs"),
        (b'{"up_mbps": "3"}', "up_mbps: Input should be a valid number"),
        (b'{"up_mbps": -1}', "up_mbps"),
        (b'{"down_mbps": 1e99}', "down_mbps"),
        (b'{"outage_s": 0}', "outage_s"),
        (b"\xff\n", "command"),
    ],
)
def test_refusal_names_what_is_wrong(line: bytes, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse_command(line)
