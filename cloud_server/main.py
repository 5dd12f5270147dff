"""``scout-cloud``: flags, settings, logs, then the daemon."""

from __future__ import annotations

import sys

import click
import uvloop

from cloud_server.settings import CloudSettings
from scout_core.daemon.command import daemon_command
from scout_core.daemon.lifecycle import run_daemon
from scout_core.daemon.logs import configure_logs


async def serve_until_stopped(settings: CloudSettings) -> None:
    """The server belongs to the running loop, so it is made inside it."""
    from cloud_server.app import CloudServer  # noqa: PLC0415 - torch loads only to serve

    await run_daemon(CloudServer(settings))


def serve(settings: CloudSettings) -> None:
    """Runs the daemon until a signal stops it."""
    configure_logs("scout-cloud", settings.log_level, settings.log_format)
    uvloop.run(serve_until_stopped(settings))


main: click.Command = daemon_command("scout-cloud", CloudSettings, serve)

if __name__ == "__main__":
    sys.exit(main())
