"""The open of a session: plain values to its message, and back.

A field that makes no sense to anyone is a RemoteProtocolError; whether the request is acceptable is
the daemons' business. What of a long question travels behind the open is ``open_parts``'s.
"""

from __future__ import annotations

import re
from typing import Final

from scout.v1 import transport_pb2, types_pb2

from scout_core.errors import RemoteProtocolError
from scout_core.modes import AgentId, ContextHash, ModelFingerprint, SessionId
from scout_core.protocol.opening import Offer, OpenParameters
from scout_core.rpc.messages import (
    EXECUTION_TO_WIRE,
    MODE_TO_WIRE,
    UNIT_TO_WIRE,
    execution_from_wire,
    mode_from_wire,
    unit_from_wire,
)
from scout_core.sampling import SamplingOptions

SESSION_ID: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
MICROSECONDS: Final = 1_000_000
MILLISECONDS: Final = 1_000
HASH_BYTES: Final = 32
MAX_AGENT_ID: Final = 64


def open_message(parameters: OpenParameters) -> transport_pb2.Open:
    """The open with its whole question."""
    sampling = parameters.sampling
    return transport_pb2.Open(
        session_id=parameters.session_id,
        agent_id=parameters.agent_id,
        model_fingerprint=parameters.model_fingerprint,
        context_hash=parameters.context_hash,
        context_tokens=parameters.context_tokens,
        question=parameters.question,
        mode=MODE_TO_WIRE[parameters.mode],
        retention=parameters.retention,
        execution=EXECUTION_TO_WIRE[parameters.execution],
        sampling=types_pb2.Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            max_tokens=sampling.max_tokens,
        ),
        deadline_ms=round(parameters.deadline_s * MILLISECONDS),
        expected_payload_bytes=parameters.expected_payload_bytes,
        round_trip_us=round(parameters.round_trip_s * MICROSECONDS),
        position_unit=UNIT_TO_WIRE[parameters.position_unit],
        context_characters=parameters.context_characters,
        offers=[
            transport_pb2.Offer(
                mode=MODE_TO_WIRE[offer.mode],
                retention=offer.retention,
                payload_bytes=offer.payload_bytes,
                expected_quality=offer.expected_quality,
                edge_s=offer.edge_s,
                execution=EXECUTION_TO_WIRE[offer.execution],
            )
            for offer in parameters.offers
        ],
    )


def open_parameters(message: transport_pb2.Open) -> OpenParameters:
    """The plain values of an open.

    Raises:
        RemoteProtocolError: a field makes no sense.
    """
    if not SESSION_ID.fullmatch(message.session_id):
        raise RemoteProtocolError("session_id must be 1 to 64 characters of [A-Za-z0-9_-].")
    if not 1 <= len(message.agent_id) <= MAX_AGENT_ID:
        raise RemoteProtocolError(
            f"agent_id must have 1 to {MAX_AGENT_ID} characters; send the registered one."
        )
    if len(message.context_hash) != HASH_BYTES:
        raise RemoteProtocolError(f"context_hash must have {HASH_BYTES} bytes.")
    return OpenParameters(
        session_id=SessionId(message.session_id),
        agent_id=AgentId(message.agent_id),
        model_fingerprint=ModelFingerprint(message.model_fingerprint),
        context_hash=ContextHash(message.context_hash),
        context_tokens=message.context_tokens,
        question=message.question,
        mode=mode_from_wire(message.mode),
        retention=message.retention,
        deadline_s=message.deadline_ms / MILLISECONDS,
        execution=execution_from_wire(message.execution),
        sampling=SamplingOptions(
            temperature=message.sampling.temperature,
            top_p=message.sampling.top_p or 1.0,
            seed=message.sampling.seed,
            max_tokens=message.sampling.max_tokens or 1,
        ),
        expected_payload_bytes=message.expected_payload_bytes,
        round_trip_s=message.round_trip_us / MICROSECONDS,
        position_unit=unit_from_wire(message.position_unit),
        context_characters=message.context_characters,
        offers=tuple(_offer(offer) for offer in message.offers),
    )


def _offer(message: transport_pb2.Offer) -> Offer:
    return Offer(
        mode_from_wire(message.mode),
        message.retention,
        message.payload_bytes,
        message.expected_quality,
        message.edge_s,
        execution_from_wire(message.execution),
    )
