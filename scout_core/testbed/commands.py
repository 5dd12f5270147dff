"""The control lines of an emulator that runs as its own process: JSON objects, one a line.

This module owns their form and effect. A command has one or more of the fields of ``LinkCommand``;
each is answered by one ``{"event": "reply", …}`` line with the statistics after it, or the reason
why it was refused (and then nothing was changed). How lines travel is ``standalone``'s and
``child``'s.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scout_core.errors import SettingsError
from scout_core.testbed.proxy import LinkEmulator

MAX_LINE_BYTES = 4096
MAX_MBPS = 1_000_000.0
MAX_OUTAGE_S = 86_400.0

Mbps = Annotated[float, Field(ge=0, le=MAX_MBPS, allow_inf_nan=False)]


class LinkCommand(BaseModel):
    """What may be asked of a running link; fields left out change nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    up_mbps: Mbps | None = None
    """Fix the uplink's rate from now on."""
    down_mbps: Mbps | None = None
    """Fix the downlink's rate from now on."""
    outage_s: Annotated[float, Field(gt=0, le=MAX_OUTAGE_S, allow_inf_nan=False)] | None = None
    """Let nothing through in either direction for so long."""
    reset: bool = False
    """Send RST on every connection."""
    status: bool = False
    """Change nothing; the reply says how things are."""
    stop: bool = False
    """End the process after the reply."""


def parse_command(line: bytes) -> LinkCommand:
    """Read one line.

    Raises:
        SettingsError: not JSON, an unknown field, a value out of range, or nothing asked.
    """
    try:
        command = LinkCommand.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "command"
        raise SettingsError(f"Link command: {field}: {first['msg']}.") from error
    if command == LinkCommand():
        known = ", ".join(LinkCommand.model_fields)
        raise SettingsError(f"Link command: nothing asked; use one of {known}.")
    return command


def apply_command(command: LinkCommand, link: LinkEmulator) -> None:
    """Do what a command asks, except stopping, which is the process's."""
    link.set_rate(up_mbps=command.up_mbps, down_mbps=command.down_mbps)
    if command.outage_s is not None:
        link.outage(command.outage_s)
    if command.reset:
        link.reset_connections()


def ready_line(link: LinkEmulator) -> str:
    """The first line of a process: where it listens."""
    host, port = link.address
    return json.dumps({"event": "ready", "host": host, "port": port})


def reply_line(link: LinkEmulator) -> str:
    """The answer to a command that was done."""
    return json.dumps({"event": "reply", "ok": True, "status": asdict(link.statistics())})


def refusal_line(error: SettingsError) -> str:
    """The answer to a command that was not."""
    return json.dumps({"event": "reply", "ok": False, "error": error.message})


def status_line(link: LinkEmulator, uptime_s: float) -> str:
    """The periodic report."""
    status = asdict(link.statistics())
    return json.dumps({"event": "link_status", "uptime_s": round(uptime_s, 3), **status})
