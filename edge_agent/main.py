"""``scout-edge``: flags, settings, logs, then the daemon."""

from __future__ import annotations

import sys

import click
import uvloop

from edge_agent.settings import EdgeSettings
from scout_core.daemon.command import daemon_command
from scout_core.daemon.lifecycle import run_daemon
from scout_core.daemon.logs import configure_logs


async def serve_until_stopped(settings: EdgeSettings) -> None:
    """Channels belong to the running loop, so the agent is made inside it."""
    from edge_agent.app import EdgeAgent  # noqa: PLC0415 - torch loads only to serve

    await run_daemon(EdgeAgent(settings))


def serve(settings: EdgeSettings) -> None:
    """Runs the daemon until a signal stops it."""
    configure_logs("scout-edge", settings.log_level, settings.log_format)
    uvloop.run(serve_until_stopped(settings))


main: click.Command = daemon_command("scout-edge", EdgeSettings, serve)

if __name__ == "__main__":
    sys.exit(main())
