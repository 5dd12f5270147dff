"""The five transport modes and the identities every room shares.

This module owns names, not behaviour: it knows neither codecs nor models nor the wire.
"""

from __future__ import annotations

from enum import Enum
from typing import NewType

AgentId = NewType("AgentId", str)
TenantId = NewType("TenantId", str)
SessionId = NewType("SessionId", str)
ContextHash = NewType("ContextHash", bytes)
"""32-byte SHA-256 over the context's token ids (little-endian uint32), salted by tokenizer id."""
ModelFingerprint = NewType("ModelFingerprint", str)
"""Hex SHA-256 over weights, config, tokenizer and chat template."""


class Mode(Enum):
    """What crosses the uplink (DESIGN §3). The value is the name people type."""

    KV_BF16 = "kv_bf16"
    KV_INT8 = "kv_int8"
    KV_INT4 = "kv_int4"
    KV_SELECT = "kv_select"
    SCOUT = "scout"

    @property
    def carries_kv(self) -> bool:
        """Whether the payload is KV cache, so that both ends must hold the same model."""
        return self is not Mode.SCOUT

    @property
    def selects(self) -> bool:
        """Whether retention below 1.0 means anything in this mode."""
        return self in (Mode.KV_SELECT, Mode.SCOUT)


class PositionUnit(Enum):
    """What a selection counts on the wire, and how a context that the cloud lacks crosses."""

    CLOUD_TOKENS = "cloud_tokens"
    """Tokens of the cloud's model: the edge has its tokenizer."""
    CHARACTERS = "characters"
    """Characters of the text, which the cloud maps to its tokens."""


class Execution(Enum):
    """How the cloud realises a selection (DESIGN §3)."""

    EVICT = "evict"
    """Full prefill, then keep the selected positions."""
    SPARSE = "sparse"
    """Prefill only the selected tokens, at their original positions."""
