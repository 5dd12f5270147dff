"""``scout link``: the link emulator as a program, and its self-test."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, assert_never

import click
import uvloop

from scout_core.errors import ScoutError, SettingsError
from scout_core.testbed import accuracy, generators
from scout_core.testbed.accuracy import Placement, RunningLink, SelfTest
from scout_core.testbed.child import LinkProcess
from scout_core.testbed.generators import RadioClass
from scout_core.testbed.link import DEFAULT_QUEUE_BYTES, LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from scout_core.testbed.queueing import Discipline
from scout_core.testbed.schedule import RateSchedule
from scout_core.testbed.standalone import Console, run_standalone
from scout_core.testbed.traces import load_trace

GENERATED_S = 600.0
"""Length of a generated rate before it loops: as long as the recorded traces."""


class Generated(Enum):
    """Made uplinks, by name."""

    MARKOV = "markov"
    THREE_G = "3g"
    LTE = "lte"
    FIVE_G = "5g"


def _address(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    """HOST:PORT, with an IPv6 host in brackets."""
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"'{value}' is not HOST:PORT.", context, option)
    return host.strip("[]"), int(port)


def _steps(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[tuple[float, float], ...] | None:
    """MBPS:SECONDS,MBPS:SECONDS,… as (seconds, mbps) pairs."""
    if value is None:
        return None
    try:
        pairs = [step.split(":") for step in value.split(",")]
        return tuple((float(seconds), float(mbps)) for mbps, seconds in pairs)
    except ValueError as error:
        message = f"'{value}' is not MBPS:SECONDS,MBPS:SECONDS,…"
        raise click.BadParameter(message, context, option) from error


@dataclass(frozen=True, slots=True)
class RateOptions:
    """The ways to say a direction's rate, of which at most one is used."""

    mbps: float
    trace: Path | None
    steps: tuple[tuple[float, float], ...] | None
    generate: Generated | None
    loop: bool
    seed: int

    def schedule(self) -> RateSchedule:
        """The schedule asked for.

        Raises:
            SettingsError: two ways at once, or an unusable trace or step.
        """
        if sum(way is not None for way in (self.trace, self.steps, self.generate)) > 1:
            raise SettingsError("Give a direction one of a trace, steps or a generator.")
        if self.trace is not None:
            return load_trace(self.trace, loop=self.loop)
        if self.steps is not None:
            return RateSchedule.from_spans(self.steps, loop=self.loop)
        match self.generate:
            case None:
                return RateSchedule.constant(self.mbps)
            case Generated.MARKOV:
                return generators.markov(GENERATED_S, self.seed, loop=self.loop)
            case Generated.THREE_G | Generated.LTE | Generated.FIVE_G:
                kind = RadioClass(self.generate.value)
                return generators.radio(kind, GENERATED_S, self.seed, loop=self.loop)
            case _:
                assert_never(self.generate)


@click.command("link")
@click.option(
    "--listen", metavar="HOST:PORT", callback=_address, default="127.0.0.1:0", show_default=True
)
@click.option(
    "--upstream",
    metavar="HOST:PORT",
    callback=_address,
    help="Where to connect for each accepted connection.",
)
@click.option("--up-mbps", type=float, default=20.0, show_default=True)
@click.option("--down-mbps", type=float, default=100.0, show_default=True)
@click.option("--rtt-ms", type=float, default=20.0, show_default=True)
@click.option("--jitter-ms", type=float, default=0.0, show_default=True)
@click.option(
    "--queue-kib",
    type=float,
    default=DEFAULT_QUEUE_BYTES / 1024,
    show_default=True,
    help="What each direction queues before its senders are blocked.",
)
@click.option(
    "--discipline",
    type=click.Choice([item.value for item in Discipline]),
    default="fifo",
    show_default=True,
    help="How connections share the link.",
)
@click.option("--trace", type=click.Path(path_type=Path), help="Uplink rates, CSV t_s,mbps.")
@click.option("--down-trace", type=click.Path(path_type=Path), help="Downlink rates, CSV t_s,mbps.")
@click.option(
    "--steps", metavar="MBPS:S,…", callback=_steps, help="Uplink rates, e.g. 100:5,20:5,3:5,0.3:5."
)
@click.option("--down-steps", metavar="MBPS:S,…", callback=_steps, help="Downlink rates.")
@click.option(
    "--generate",
    type=click.Choice([item.value for item in Generated]),
    help="Uplink rates, made.",
)
@click.option(
    "--loop/--no-loop", default=True, help="Repeat a rate after its end.", show_default=True
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of jitter and --generate.")
@click.option(
    "--status-s",
    type=float,
    default=5.0,
    show_default=True,
    help="Print a status line to standard error so often; 0: never.",
)
@click.option(
    "--child",
    is_flag=True,
    help="End when standard input does, and print no status: for a parent that drives it.",
)
@click.option("--self-test", is_flag=True, help="Measure the emulator on this machine, and exit.")
@click.option(
    "--seconds", type=float, default=5.0, show_default=True, help="Of each self-test rate."
)
@click.option("--json", "as_json", is_flag=True, help="Print the self-test as one JSON document.")
def command(**options: Any) -> None:
    """Put an emulated link in front of a TCP service.

    Prints where it listens as a line of JSON, then obeys control lines on standard input when that
    is a pipe: {"up_mbps": 3}, {"down_mbps": 8}, {"outage_s": 2}, {"reset": true},
    {"status": true}, {"stop": true}; each is answered by one line.
    """
    try:
        if options["self_test"]:
            _self_test(float(options["seconds"]), as_json=bool(options["as_json"]))
        else:
            _run(options)
    except ScoutError as error:
        raise click.ClickException(error.message) from error


def _run(options: dict[str, Any]) -> None:
    if options["upstream"] is None:
        raise click.UsageError("--upstream HOST:PORT is needed: the service behind the link.")
    link = LinkEmulator(_config(options), options["upstream"], options["listen"])
    console = Console(
        commands=sys.stdin.buffer,
        reply=click.echo,
        report=_to_stderr,
        report_every_s=0.0 if options["child"] else options["status_s"],
        ends_with_commands=options["child"],
    )
    uvloop.run(run_standalone(link, console))


def _config(options: dict[str, Any]) -> LinkConfig:
    generate = Generated(options["generate"]) if options["generate"] else None
    loop, seed = options["loop"], options["seed"]
    up = RateOptions(
        options["up_mbps"], options["trace"], options["steps"], generate, loop=loop, seed=seed
    )
    down = RateOptions(
        options["down_mbps"], options["down_trace"], options["down_steps"], None, loop, seed
    )
    return LinkConfig(
        up=up.schedule(),
        down=down.schedule(),
        rtt_s=options["rtt_ms"] / 1e3,
        jitter_s=options["jitter_ms"] / 1e3,
        queue_bytes=int(options["queue_kib"] * 1024),
        discipline=Discipline(options["discipline"]),
        seed=seed,
    )


def _self_test(seconds: float, *, as_json: bool) -> None:
    openers = {Placement.IN_PROCESS: _open_in_process, Placement.OWN_PROCESS: open_own_process}
    test = asyncio.run(accuracy.self_test(openers, accuracy.RATES_MBPS, seconds, _to_stderr))
    if as_json:
        click.echo(json.dumps(test.document(), indent=2))
    else:
        _print_table(test)
    if test.worst_error_percent > accuracy.LIMIT_PERCENT:
        raise click.ClickException(
            f"A rate is off by {test.worst_error_percent:.1f} %, more than "
            f"{accuracy.LIMIT_PERCENT:g} %: free the machine of other load and try again."
        )


def _open_in_process(
    rate_mbps: float, rtt_s: float, upstream: tuple[str, int]
) -> AbstractAsyncContextManager[RunningLink]:
    return LinkEmulator(LinkConfig.constant(rate_mbps, rate_mbps, rtt_s), upstream)


def open_own_process(
    rate_mbps: float, rtt_s: float, upstream: tuple[str, int]
) -> AbstractAsyncContextManager[RunningLink]:
    """The emulator in a process of its own, as between two hosts: the same rate both ways."""
    program = [sys.executable, "-m", "scout_core.cli.link", "--child"]
    address = ["--upstream", f"{upstream[0]}:{upstream[1]}", "--rtt-ms", str(rtt_s * 1e3)]
    rates = ["--up-mbps", str(rate_mbps), "--down-mbps", str(rate_mbps)]
    return LinkProcess([*program, *address, *rates])


def _print_table(test: SelfTest) -> None:
    click.echo(f"{'emulator':<12} {'way':<5} {'set Mbit/s':>11} {'measured':>11} {'error':>8}")
    for row in test.rates:
        click.echo(
            f"{row.placement.value:<12} {row.direction.value:<5} {row.rate_mbps:>11g} "
            f"{row.measured_mbps:>11.4f} {row.error_percent:>+7.2f}%"
        )
    for trip in test.round_trips:
        click.echo(
            f"{trip.placement.value:<12} round trip set {trip.set_ms:g} ms: "
            f"p50 {trip.p50_ms:.2f} ms, p95 {trip.p95_ms:.2f} ms"
        )


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    command()
