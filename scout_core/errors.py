"""Every error Scout raises on purpose, as one tree.

This module owns the *reasons*; it does not know gRPC. ``scout_core.rpc.status`` maps each branch
to a gRPC status code and back. A message always says what to do next; ``reason`` is the stable,
machine-readable name that travels in ``google.rpc.ErrorInfo``.

    ScoutError
    ├── RequestError                 the caller asked for something that cannot be
    │   ├── EmptyInputError              context or question is empty
    │   ├── RetentionError               retention outside (0, 1]
    │   ├── DeadlineError                deadline absent, past or absurd
    │   ├── SamplingError                temperature, top_p or max_tokens out of range
    │   ├── ContextTooLongError          longer than the model window or the configured limit
    │   ├── ModeUnavailableError         the forced mode is not feasible here
    │   ├── UnknownContextError          a context hash nobody has uploaded
    │   └── UnauthenticatedError         the caller did not prove who it is
    ├── ModelError
    │   ├── UnknownModelError            no such model reference
    │   ├── FingerprintMismatchError     the two ends hold different models
    │   ├── UnsupportedModelError        the architecture cannot do what was asked
    │   └── ProfileError                 a profile is unreadable or made for other models
    ├── PayloadError                 bytes from a peer that do not mean anything
    │   ├── PositionsError               indices out of range, unsorted or repeated
    │   └── CodecError                   a codec rejected its input (shape, size, NaN, truncation)
    ├── ProtocolError
    │   ├── LocalProtocolError           we misused our own state machine
    │   └── RemoteProtocolError          the peer broke the protocol
    │       ├── CreditExceededError          sent beyond its credit
    │       ├── ChunkError                   checksum, overlap or offset of a chunk is wrong
    │       └── DigestMismatchError          finish does not match what arrived
    ├── TransportError
    │   ├── PeerUnavailableError         cannot connect, or the peer went away
    │   ├── PeerTimeoutError             the peer said nothing for too long
    │   ├── SlowConsumerError            the caller stopped reading its answer
    │   └── DrainingError                the daemon is shutting down; try another or retry later
    ├── OverloadedError              a budget (memory, queue, sessions) is used up; retry later
    └── SettingsError                a configuration file, variable or flag is wrong
"""

from __future__ import annotations

from typing import ClassVar


class ScoutError(Exception):
    """Root of the tree.

    Args:
        message: one sentence that says what is wrong and what to do.
        details: short string facts for machines (they travel as ErrorInfo metadata).
    """

    reason: ClassVar[str] = "SCOUT_ERROR"

    def __init__(self, message: str, **details: str | int | float) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, str] = {key: str(value) for key, value in details.items()}


class RequestError(ScoutError):
    reason = "REQUEST_INVALID"


class EmptyInputError(RequestError):
    reason = "EMPTY_INPUT"


class RetentionError(RequestError):
    reason = "RETENTION_OUT_OF_RANGE"


class DeadlineError(RequestError):
    reason = "DEADLINE_INVALID"


class SamplingError(RequestError):
    reason = "SAMPLING_INVALID"


class ContextTooLongError(RequestError):
    reason = "CONTEXT_TOO_LONG"


class ModeUnavailableError(RequestError):
    reason = "MODE_UNAVAILABLE"


class UnknownContextError(RequestError):
    reason = "UNKNOWN_CONTEXT"


class UnauthenticatedError(RequestError):
    reason = "UNAUTHENTICATED"


class ModelError(ScoutError):
    reason = "MODEL_ERROR"


class UnknownModelError(ModelError):
    reason = "UNKNOWN_MODEL"


class FingerprintMismatchError(ModelError):
    reason = "FINGERPRINT_MISMATCH"


class UnsupportedModelError(ModelError):
    reason = "UNSUPPORTED_MODEL"


class ProfileError(ModelError):
    reason = "PROFILE_INVALID"


class PayloadError(ScoutError):
    reason = "PAYLOAD_INVALID"


class PositionsError(PayloadError):
    reason = "POSITIONS_INVALID"


class CodecError(PayloadError):
    reason = "CODEC_REJECTED"


class ProtocolError(ScoutError):
    reason = "PROTOCOL_ERROR"


class LocalProtocolError(ProtocolError):
    reason = "LOCAL_PROTOCOL_ERROR"


class RemoteProtocolError(ProtocolError):
    reason = "REMOTE_PROTOCOL_ERROR"


class CreditExceededError(RemoteProtocolError):
    reason = "CREDIT_EXCEEDED"


class ChunkError(RemoteProtocolError):
    reason = "CHUNK_INVALID"


class DigestMismatchError(RemoteProtocolError):
    reason = "DIGEST_MISMATCH"


class TransportError(ScoutError):
    reason = "TRANSPORT_ERROR"


class PeerUnavailableError(TransportError):
    reason = "PEER_UNAVAILABLE"


class PeerTimeoutError(TransportError):
    reason = "PEER_TIMEOUT"


class SlowConsumerError(TransportError):
    reason = "SLOW_CONSUMER"


class DrainingError(TransportError):
    reason = "DRAINING"


class OverloadedError(ScoutError):
    reason = "OVERLOADED"


class SettingsError(ScoutError):
    reason = "SETTINGS_INVALID"
