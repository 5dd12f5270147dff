"""The table of commands, loaded on demand so that ``scout status`` does not load torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from scout_core.errors import ScoutError
from scout_core.version import VERSION

COMMANDS: Final[Mapping[str, str]] = {
    "ask": "scout_core.cli.ask",
    "bench allocator": "scout_core.cli.bench_allocator",
    "bench codec": "scout_core.cli.bench_codec",
    "bench engine": "scout_core.cli.bench_engine",
    "bench index": "scout_core.cli.bench_index",
    "bench transport": "scout_core.cli.bench_transport",
    "calibrate": "scout_core.cli.calibrate",
    "demo": "scout_core.cli.demo",
    "eval allocation": "scout_core.cli.eval_allocation",
    "eval policy": "scout_core.cli.eval_policy",
    "eval quality": "scout_core.cli.eval_quality",
    "eval realtime": "scout_core.cli.eval_realtime",
    "link": "scout_core.cli.link",
    "status": "scout_core.cli.status",
}
"""Command to the module that holds it as ``command``. A new command is one line here."""

GROUPS: Final[Mapping[str, str]] = {
    "bench": "Benchmarks: peer, limit and ours from one run, as ratios.",
    "eval": "Studies: quality, policies, allocation.",
}
SUMMARIES: Final[Mapping[str, str]] = {
    "ask": "Ask one question about a context.",
    "bench allocator": "Milliseconds per solve and value against the exact optimum.",
    "bench codec": "KV codecs: rate, distortion, speed, beside their peers.",
    "bench engine": "Prefill, scoring and decoding on this host.",
    "bench index": "Bytes of coded selections against the bound.",
    "bench transport": "Sessions against bare gRPC, TCP and the emulated link.",
    "calibrate": "Fit a profile for a cloud and scout pair.",
    "demo": "Both daemons, the link emulator and the five modes on this host.",
    "eval allocation": "Allocators over N agents in virtual time.",
    "eval policy": "Mode policies over bandwidth traces in virtual time.",
    "eval quality": "Answer quality by mode, retention and selector.",
    "eval realtime": "Deadlines kept by real daemons behind a replayed link.",
    "link": "Emulate a link: rate, delay, queue, outages.",
    "status": "What a daemon sees: agents, models, link, last requests.",
}


class LazyGroup(click.Group):
    """Resolves its commands through ``COMMANDS`` when they are called."""

    def __init__(self, prefix: str = "", **attributes: Any) -> None:
        super().__init__(**attributes)
        self._prefix = f"{prefix} " if prefix else ""

    def _names(self) -> dict[str, str]:
        """Next word of every command below this group, with its summary."""
        names: dict[str, str] = {}
        for full_name in COMMANDS:
            if full_name.startswith(self._prefix):
                word, _, rest = full_name.removeprefix(self._prefix).partition(" ")
                names[word] = GROUPS[word] if rest else SUMMARIES[full_name]
        return names

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(self._names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        full_name = self._prefix + cmd_name
        if full_name in COMMANDS:
            command: click.Command = importlib.import_module(COMMANDS[full_name]).command
            return command
        if cmd_name in self._names():
            return LazyGroup(prefix=full_name, name=cmd_name, help=GROUPS[cmd_name])
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Summaries from the table: help must not import every command."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self._names().items()))


application = click.version_option(VERSION, prog_name="scout")(
    LazyGroup(
        name="scout", help="Bandwidth-adaptive KV-cache transport for edge-cloud LLM inference."
    )
)


def main() -> None:
    """Entry point: errors of the tree become one line on stderr and exit code 1."""
    try:
        application.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ScoutError as error:
        click.echo(f"Error: {error.message} [{error.reason}]", err=True)
        sys.exit(1)
