"""Settings of ``scout-cloud``: TOML file < SCOUT_CLOUD_* environment < flags."""

from __future__ import annotations

import json
import socket
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from scout_core.daemon.serving import MIB, Address, Identity, ServingSettings
from scout_core.rpc.options import LEAST_MESSAGE_BYTES, MAX_MESSAGE_BYTES


def _table(value: object) -> object:
    """A flag carries a table as JSON; a file's or the environment's is one already."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError('expected a JSON object such as {"default": 1.0}') from error


Figure = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Table = Annotated[dict[Identity, Figure], BeforeValidator(_table)]
LEARN: Final = "learn"
Capacity = Figure | Literal["learn"]
CapacityTable = Annotated[dict[Identity, Capacity], BeforeValidator(_table)]
ShareTable = Annotated[dict[Identity, Share], BeforeValidator(_table)]


class CloudSettings(ServingSettings):
    """Every key has a unit in its name and a range; ``scout-cloud --print-config`` shows all."""

    model_config = SettingsConfigDict(env_prefix="SCOUT_CLOUD_")

    listen: Address = Field("127.0.0.1:7071", description="Address to serve on, HOST:PORT.")
    server_id: Identity = Field(
        default_factory=lambda: socket.gethostname()[:64] or "cloud",
        description="Name of this server in logs and status.",
    )
    model: str = Field(
        "bundled:smollm2-135m-qa",
        min_length=1,
        description="The model that answers: bundled:NAME, a hub id or a folder.",
    )
    max_answer_tokens: int = Field(
        512, ge=1, le=65_536, description="Most tokens one answer may have."
    )
    initial_credit_bytes: int = Field(
        64 * 1024,
        ge=1_024,
        le=4 * MIB,
        description="Payload bytes a session may send before it is accepted.",
    )
    payload_budget_bytes: int = Field(
        1_024 * MIB, ge=MIB, description="Memory for payloads under way, all sessions, in bytes."
    )
    uplink_bytes_per_s: float = Field(
        0.0,
        ge=0,
        description="Rate at which credit is paced for each session of an uplink that is not "
        "scheduled; 0: not paced.",
    )
    uplink_capacity_bytes_per_s: CapacityTable = Field(
        default_factory=dict[str, Capacity],
        description="Capacity of each uplink group, in payload bytes per second, as a table: the "
        'uplinks named here are scheduled among their agents, others are not. "learn": follow what '
        "crosses it and how long that waits.",
    )
    uplink_round_trip_s: float = Field(
        0.1,
        gt=0,
        le=5,
        description="Longest round trip over which one agent alone is to fill a scheduled uplink, "
        "seconds. Smaller: an agent that floods takes less from the others.",
    )
    largest_message_bytes: int | None = Field(
        None,
        ge=LEAST_MESSAGE_BYTES,
        le=MAX_MESSAGE_BYTES,
        description="Largest message that this server takes on `listen`, bytes; none: 4 MiB, and "
        "with scheduled uplinks 20 ms of the slowest (at least 4,160). A larger one is refused by "
        "its first bytes, so this bounds what an agent with credit can put on a scheduled uplink "
        "beyond it. Agents are told and keep to it; contexts that applications send here directly "
        "have to fit.",
    )
    applications_listen: Address | None = Field(
        None,
        description="Another address for applications that reach the cloud without an edge, "
        "HOST:PORT, with messages of up to 4 MiB; none: `listen` alone. Do not let agents of "
        "scheduled uplinks reach it.",
    )
    uplink_deadline_reserve: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Part of the time to a request's deadline that the schedule of its uplink "
        "leaves free: predicted compute times err, and a busy host sends late.",
    )
    tenant_weights: Table = Field(
        default_factory=dict[str, float],
        description="How much a tenant's answers count beside others' on a scheduled uplink; 1.0 "
        "where not named.",
    )
    tenant_guaranteed_shares: ShareTable = Field(
        default_factory=dict[str, float],
        description="Fraction of each scheduled uplink kept for a tenant while it has requests.",
    )
    metrics_listen: Address | None = Field(
        None, description="Address of the Prometheus metrics over HTTP, HOST:PORT; none: not shown."
    )
    heartbeat_interval_s: float = Field(
        1.0, ge=0.1, le=60, description="How often agents report, seconds."
    )
    session_resume_s: float = Field(
        30.0, ge=0, le=600, description="How long a dropped session is kept for its agent, seconds."
    )
