"""Settings of ``scout-edge``: TOML file < SCOUT_EDGE_* environment < flags."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from scout_core.daemon.serving import MIB, Address, Identity, ServingSettings
from scout_core.protocol.payload_sender import DEFAULT_CHUNK_BYTES


class EdgeSettings(ServingSettings):
    """Every key has a unit in its name and a range; ``scout-edge --print-config`` shows all."""

    model_config = SettingsConfigDict(env_prefix="SCOUT_EDGE_")

    listen: Address = Field("127.0.0.1:7070", description="Address to serve on, HOST:PORT.")
    cloud: Address = Field("127.0.0.1:7071", description="The cloud server, HOST:PORT.")
    cloud_tls_certificate: Path | None = Field(
        None, description="PEM file: certificate shown to the cloud (mutual TLS)."
    )
    cloud_tls_key: Path | None = Field(None, description="PEM file: key of that certificate.")
    cloud_tls_authority: Path | None = Field(
        None, description="PEM file: the authority that signed the cloud's certificate."
    )
    agent_id: Identity = Field(
        default_factory=lambda: socket.gethostname()[:64] or "edge",
        description="Name of this agent at the cloud; unique among its agents.",
    )
    tenant: Identity = Field("default", description="Whose contexts are shared at the cloud.")
    uplink_group: Identity = Field(
        "default", description="The uplink this agent shares with others."
    )
    cloud_model: str = Field(
        "bundled:smollm2-135m-qa",
        description="The cloud's model, held here for the KV modes; empty: scout mode alone.",
    )
    cloud_tokenizer: str = Field(
        "",
        description="The cloud's model, of which only the tokenizer is read: for a scout of "
        "another family where cloud_model is empty. Empty: such a scout sends the text and ranges "
        "of its characters.",
    )
    scout_model: str = Field(
        "bundled:smollm2-135m-scout",
        description="The model that scores positions; empty: retention 1.0 alone.",
    )
    profile: str = Field(
        "",
        description="Profile JSON from `scout calibrate`; empty: the one bundled with the pair.",
    )
    default_deadline_s: float = Field(
        5.0, gt=0, le=600, description="Deadline of requests that name none, seconds."
    )
    policy: Literal[
        "ours",
        "tokens",
        "throughput",
        "robust_mpc",
        "fixed:kv_bf16",
        "fixed:kv_int8",
        "fixed:kv_int4",
        "fixed:kv_select",
        "fixed:scout",
    ] = Field("ours", description="How a mode is chosen where the caller forces none.")
    target_probability: float = Field(
        0.9, gt=0, lt=1, description="Least acceptable probability of meeting a deadline."
    )
    chunk_bytes: int = Field(
        DEFAULT_CHUNK_BYTES,
        ge=4_096,
        le=MIB,
        description="Largest payload chunk, in bytes; "
        "smaller where the cloud server takes no messages as large.",
    )
    lookahead_bytes: int = Field(
        0,
        ge=0,
        le=64 * MIB,
        description="Payload encoded before there is credit to send it, per request, bytes. What "
        "is encoded early cannot change its codec when the link does; what is in flight keeps the "
        "link busy meanwhile.",
    )
    resume_window_s: float = Field(
        30.0, ge=0, le=600, description="How long a dropped session is tried again, seconds."
    )
    overdue_grace_s: float = Field(
        1.0,
        ge=0,
        le=600,
        description="How long after its deadline a request without a first token is still waited "
        "for while the cloud is silent, seconds. Late answers are given whenever it is heard.",
    )
    probe_bytes_per_minute: int = Field(
        2 * MIB, ge=0, le=1_024 * MIB, description="Budget for probing an idle link; 0: never."
    )
    probe_idle_s: float = Field(
        10.0, gt=0, le=3_600, description="A link idle for this long may be probed, seconds."
    )
    metered: bool = Field(False, description="The link costs money per byte: never probe.")
