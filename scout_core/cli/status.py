"""``scout status``: what a daemon sees, as a table or JSON."""

from __future__ import annotations

import asyncio

import click
from google.protobuf.json_format import MessageToJson
from rich.console import Console
from rich.table import Table
from scout.v1 import control_pb2

from scout_core.rpc.client import InferenceClient
from scout_core.rpc.messages import MODE_FROM_WIRE

MEGABIT = 125_000.0


@click.command("status")
@click.argument("address", default="127.0.0.1:7070")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def command(address: str, as_json: bool) -> None:
    """Show a daemon's state; ADDRESS is HOST:PORT of an edge agent or a cloud server."""
    status = asyncio.run(_fetch(address))
    if as_json:
        click.echo(MessageToJson(status, preserving_proto_field_name=True, indent=None))
        return
    console = Console()
    match status.WhichOneof("daemon"):
        case "edge":
            _print_edge(console, status.edge)
        case "cloud":
            _print_cloud(console, status.cloud)
        case _:
            raise click.ClickException("The daemon sent no status; run the same version.")


async def _fetch(address: str) -> control_pb2.GetStatusResponse:
    async with InferenceClient(address) as client:
        return await client.status()


def _print_edge(console: Console, edge: control_pb2.EdgeStatus) -> None:
    state = "attached" if edge.attached else "NOT attached"
    console.print(f"edge agent {edge.agent_id} {edge.version}, {state} to {edge.cloud_address}")
    for model in edge.models:
        console.print(f"  model {model.name} {model.fingerprint[:12]} ({model.compute_dtype})")
    console.print(f"  profile {edge.profile or 'uncalibrated'}")
    link = edge.link
    if link.goodput_bytes_per_s:
        console.print(
            f"  link {link.goodput_bytes_per_s / MEGABIT:.2f} Mbit/s "
            f"(10 %: {link.goodput_low_bytes_per_s / MEGABIT:.2f}), round trip "
            f"{link.round_trip_s * 1_000:.0f} ms, measured {link.sample_age_s:.0f} s ago"
        )
    else:
        console.print("  link not measured yet")
    table = Table(
        "session", "mode", "retention", "payload bytes", "TTFT s", "deadline s", "outcome"
    )
    for request in edge.last_requests:
        table.add_row(
            request.session_id[:8],
            _mode_name(request.mode),
            f"{request.retention:.2f}",
            f"{request.payload_bytes:,}",
            f"{request.ttft_s:.2f}",
            f"{request.deadline_s:g}",
            request.outcome,
        )
    console.print(table)


def _print_cloud(console: Console, cloud: control_pb2.CloudStatus) -> None:
    draining = ", draining" if cloud.draining else ""
    console.print(f"cloud server {cloud.server_id} {cloud.version}{draining}")
    model = cloud.model
    console.print(f"  model {model.name} {model.fingerprint[:12]} ({model.compute_dtype})")
    console.print(
        f"  {cloud.sessions} sessions, queue {cloud.queue_s:.2f} s, {cloud.contexts} contexts in "
        f"{cloud.context_bytes:,} of {cloud.context_budget_bytes:,} bytes"
    )
    table = Table("agent", "heartbeat s ago", "goodput Mbit/s", "last mode", "in flight")
    for agent in cloud.agents:
        table.add_row(
            agent.agent_id,
            f"{agent.heartbeat_age_s:.1f}",
            f"{agent.goodput_bytes_per_s / MEGABIT:.2f}",
            _mode_name(agent.last_mode),
            str(agent.requests_in_flight),
        )
    console.print(table)


def _mode_name(value: int) -> str:
    mode = MODE_FROM_WIRE.get(value)
    return mode.value if mode else "-"
