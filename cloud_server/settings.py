"""Settings of ``scout-cloud``: TOML file < SCOUT_CLOUD_* environment < flags."""

from __future__ import annotations

import socket

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from scout_core.daemon.serving import MIB, Address, Identity, ServingSettings


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
        0.0, ge=0, description="Rate at which credit is paced for each session; 0: not paced."
    )
    heartbeat_interval_s: float = Field(
        1.0, ge=0.1, le=60, description="How often agents report, seconds."
    )
    session_resume_s: float = Field(
        30.0, ge=0, le=600, description="How long a dropped session is kept for its agent, seconds."
    )
