"""The settings that both daemons have in common: address, model host, budgets, logs, TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from scout_core.daemon.logs import LogFormat
from scout_core.daemon.settings import DaemonSettings

MIB = 1024 * 1024

Address = Annotated[str, Field(pattern=r"^.+:\d{1,5}$")]
Identity = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class ServingSettings(DaemonSettings):
    """Common to ``scout-edge`` and ``scout-cloud``."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where torch computes.")
    compute_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number format of the arithmetic; auto picks the faster per host."
    )
    threads: int = Field(0, ge=0, le=1024, description="Torch threads; 0: one per core.")
    transform: str = Field(
        "",
        description="Transform basis that KV of the cloud's model may be coded with, a file; "
        "empty: the one bundled with that model, if any; none: plain groups alone. It is used "
        "where both ends hold the same.",
    )
    context_limit_tokens: int = Field(
        8_192, ge=16, le=1_048_576, description="Longest context accepted, in tokens."
    )
    context_store_bytes: int = Field(
        2_048 * MIB, ge=MIB, description="Memory for stored contexts, in bytes."
    )
    context_ttl_s: float = Field(
        3_600.0, gt=0, le=604_800, description="Seconds a context lives after its last use."
    )
    max_requests: int = Field(64, ge=1, le=65_536, description="Requests in flight at once.")
    write_timeout_s: float = Field(
        20.0, ge=0.1, le=600, description="Longest wait for a peer that does not read, seconds."
    )
    drain_timeout_s: float = Field(
        30.0,
        ge=0,
        le=3_600,
        description="Longest wait for requests in flight at shutdown, seconds.",
    )
    tls_certificate: Path | None = Field(None, description="PEM file: this end's certificate.")
    tls_key: Path | None = Field(None, description="PEM file: this end's private key.")
    tls_authority: Path | None = Field(
        None, description="PEM file: the authority that signed the peers' certificates."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: LogFormat = Field(LogFormat.AUTO, description="json, console, or auto.")
