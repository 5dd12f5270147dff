"""``scout status``: what a daemon sees, as a table, a live table or JSON.

Owns the layout; every figure is the daemon's own, and nothing is computed here but units.
"""

from __future__ import annotations

import asyncio

import click
from google.protobuf.json_format import MessageToJson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from scout.v1 import control_pb2

from scout_core.errors import TransportError
from scout_core.rpc.client import InferenceClient
from scout_core.rpc.messages import MODE_FROM_WIRE

MEGABIT = 125_000.0
DEFAULT_PERIOD_S = 1.0
NOTHING = "-"


@click.command("status")
@click.argument("address", default="127.0.0.1:7070")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=DEFAULT_PERIOD_S,
    metavar="[SECONDS]",
    help="Show it again every SECONDS (1) until interrupted.",
)
@click.option("--count", type=click.IntRange(min=1), help="End --watch after so many times.")
def command(address: str, as_json: bool, watch: float | None, count: int | None) -> None:
    """Show a daemon's state; ADDRESS is HOST:PORT of an edge agent or a cloud server."""
    if watch is None:
        if count is not None:
            raise click.UsageError("--count needs --watch.")
        status = asyncio.run(_fetch(address))
        if as_json:
            click.echo(MessageToJson(status, preserving_proto_field_name=True, indent=None))
        else:
            Console().print(view(status))
        return
    if as_json:
        raise click.UsageError("--json prints one document; leave --watch out.")
    try:
        asyncio.run(_watch(address, watch, count))
    except KeyboardInterrupt:
        return


async def _fetch(address: str) -> control_pb2.GetStatusResponse:
    async with InferenceClient(address) as client:
        return await client.status()


async def _watch(address: str, period_s: float, count: int | None) -> None:
    """A daemon that does not answer is shown as such, and asked again."""
    shown = 0
    async with InferenceClient(address) as client:
        with Live(Text(f"asking {address} …"), auto_refresh=False) as live:
            while True:
                try:
                    live.update(view(await client.status()), refresh=True)
                except TransportError as error:
                    live.update(Text(error.message, style="red"), refresh=True)
                shown += 1
                if shown == count:
                    return
                await asyncio.sleep(period_s)


def view(status: control_pb2.GetStatusResponse) -> RenderableType:
    """A daemon's snapshot for people.

    Raises:
        ClickException: the snapshot names no daemon that this version knows.
    """
    match status.WhichOneof("daemon"):
        case "edge":
            return _edge(status.edge)
        case "cloud":
            return _cloud(status.cloud)
        case _:
            raise click.ClickException("The daemon sent no status; run the same version.")


def _edge(edge: control_pb2.EdgeStatus) -> RenderableType:
    state = "attached" if edge.attached else "NOT attached"
    lines = [f"edge agent {edge.agent_id} {edge.version}, {state} to {edge.cloud_address}"]
    lines += [
        f"  model {model.name} {model.fingerprint[:12]} ({model.compute_dtype})"
        for model in edge.models
    ]
    lines.append(f"  profile {edge.profile or 'uncalibrated'}")
    link = edge.link
    if link.goodput_bytes_per_s:
        lines.append(
            f"  link {link.goodput_bytes_per_s / MEGABIT:.2f} Mbit/s "
            f"(10 %: {link.goodput_low_bytes_per_s / MEGABIT:.2f}), round trip "
            f"{link.round_trip_s * 1_000:.0f} ms, measured {link.sample_age_s:.0f} s ago"
        )
    else:
        lines.append("  link not measured yet")
    table = Table(
        "session", "mode", "retention", "payload bytes", "TTFT s", "deadline s", "outcome"
    )
    for request in edge.last_requests:
        table.add_row(
            request.session_id[:8] or NOTHING,
            _mode_name(request.mode),
            f"{request.retention:.2f}" if request.retention else NOTHING,
            f"{request.payload_bytes:,}",
            f"{request.ttft_s:.2f}" if request.ttft_s else NOTHING,
            f"{request.deadline_s:g}" if request.deadline_s else NOTHING,
            request.outcome,
        )
    return Group(Text("\n".join(lines)), table)


def _cloud(cloud: control_pb2.CloudStatus) -> RenderableType:
    draining = ", draining" if cloud.draining else ""
    model = cloud.model
    lines = [
        f"cloud server {cloud.server_id} {cloud.version}{draining}",
        f"  model {model.name} {model.fingerprint[:12]} ({model.compute_dtype})",
        f"  {cloud.sessions} sessions, queue {cloud.queue_s:.2f} s, {cloud.contexts} contexts in "
        f"{cloud.context_bytes:,} of {cloud.context_budget_bytes:,} bytes",
    ]
    parts: list[RenderableType] = [Text("\n".join(lines))]
    if cloud.uplinks:
        parts.append(_uplinks(cloud))
    parts.append(_agents(cloud, scheduled={uplink.group for uplink in cloud.uplinks}))
    return Group(*parts)


def _uplinks(cloud: control_pb2.CloudStatus) -> Table:
    table = Table("uplink", "capacity Mbit/s", "granted Mbit/s", "requests", "late")
    for uplink in cloud.uplinks:
        table.add_row(
            uplink.group,
            f"{uplink.capacity_bytes_per_s / MEGABIT:.2f}",
            f"{uplink.granted_bytes_per_s / MEGABIT:.2f}",
            str(uplink.requests),
            str(uplink.late),
        )
    return table


def _agents(cloud: control_pb2.CloudStatus, scheduled: set[str]) -> Table:
    table = Table(
        "agent",
        "uplink",
        "heartbeat s ago",
        "goodput Mbit/s",
        "granted Mbit/s",
        "for mode",
        "last mode",
        "in flight",
    )
    for agent in cloud.agents:
        is_scheduled = agent.uplink_group in scheduled
        table.add_row(
            agent.agent_id,
            agent.uplink_group,
            f"{agent.heartbeat_age_s:.1f}",
            f"{agent.goodput_bytes_per_s / MEGABIT:.2f}",
            f"{agent.granted_bytes_per_s / MEGABIT:.2f}" if is_scheduled else NOTHING,
            _mode_name(agent.granted_mode),
            _mode_name(agent.last_mode),
            str(agent.requests_in_flight),
        )
    return table


def _mode_name(value: int) -> str:
    mode = MODE_FROM_WIRE.get(value)
    return mode.value if mode else NOTHING
