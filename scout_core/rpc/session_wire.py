"""Session messages to protocol events, and protocol actions to session messages.

The one place where the wire's fields meet the state machines' plain values. It decides nothing:
a field that makes no sense to anyone (an unknown mode, a malformed id) is a RemoteProtocolError;
whether a request is acceptable is the daemons' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from scout.v1 import transport_pb2, types_pb2

from scout_core.errors import RemoteProtocolError
from scout_core.protocol import actions, events
from scout_core.protocol.answer import AnswerSummary, AnswerToken, FinishReason
from scout_core.protocol.opening import ContextState, UplinkShare
from scout_core.rpc.chunk_wire import decode_chunk, encode_chunk
from scout_core.rpc.messages import (
    EXECUTION_TO_WIRE,
    MODE_TO_WIRE,
    decode,
    execution_from_wire,
    mode_from_wire,
)
from scout_core.rpc.open_wire import open_message, open_parameters

ValueT = TypeVar("ValueT")

STATE_TO_WIRE: Final[Mapping[ContextState, types_pb2.ContextState]] = {
    ContextState.ABSENT: types_pb2.CONTEXT_STATE_ABSENT,
    ContextState.TOKENS: types_pb2.CONTEXT_STATE_TOKENS,
    ContextState.KV: types_pb2.CONTEXT_STATE_KV,
}
STATE_FROM_WIRE: Final[Mapping[int, ContextState]] = {v: k for k, v in STATE_TO_WIRE.items()}

REASON_TO_WIRE: Final[Mapping[FinishReason, types_pb2.FinishReason]] = {
    FinishReason.END_OF_TEXT: types_pb2.FINISH_REASON_END_OF_TEXT,
    FinishReason.MAX_TOKENS: types_pb2.FINISH_REASON_MAX_TOKENS,
}
REASON_FROM_WIRE: Final[Mapping[int, FinishReason]] = {v: k for k, v in REASON_TO_WIRE.items()}

EdgeSend = (
    actions.SendOpen
    | actions.SendChunk
    | actions.SendSwitch
    | actions.SendFinish
    | actions.SendCancel
)


@dataclass(frozen=True, slots=True)
class SendAckWithCredit:
    """An ack and the credit right behind it, as one message.

    On a fast link every ack frees credit, and a message costs the cloud about as much as receiving
    a chunk does (`scout bench transport`).
    """

    ack: actions.SendAck
    credit: actions.SendCredit


CloudSend = (
    actions.SendAccepted
    | SendAckWithCredit
    | actions.SendCredit
    | actions.SendAck
    | actions.SendToken
    | actions.SendDone
)


def encode_edge(action: EdgeSend) -> bytes:
    """A SessionRequest, serialised."""
    if isinstance(action, actions.SendChunk):
        return encode_chunk(action)
    request = transport_pb2.SessionRequest()
    match action:
        case actions.SendOpen(parameters):
            request.open.CopyFrom(open_message(parameters))
        case actions.SendSwitch(mode, retention, offset, cause):
            request.switch.mode = MODE_TO_WIRE[mode]
            request.switch.retention = retention
            request.switch.offset = offset
            request.switch.cause = cause
        case actions.SendFinish(total_bytes, digest):
            request.finish.payload_bytes = total_bytes
            request.finish.digest = digest
        case actions.SendCancel():
            request.cancel.SetInParent()
    return request.SerializeToString()


def decode_edge(data: bytes) -> events.CloudPeerEvent:
    """What the cloud's machine receives.

    Raises:
        RemoteProtocolError: the bytes or a field make no sense.
    """
    chunk = decode_chunk(data)
    if chunk is not None:
        return chunk
    request = decode(transport_pb2.SessionRequest, data)
    match request.WhichOneof("event"):
        case "chunk":
            chunk = request.chunk
            return events.ChunkReceived(chunk.offset, chunk.data, chunk.checksum)
        case "open":
            return events.OpenReceived(open_parameters(request.open))
        case "switch":
            switch = request.switch
            return events.SwitchReceived(
                mode_from_wire(switch.mode), switch.retention, switch.offset, switch.cause
            )
        case "finish":
            return events.FinishReceived(request.finish.payload_bytes, request.finish.digest)
        case "cancel":
            return events.CancelReceived()
        case "question_part":
            raise RemoteProtocolError("A part of a question without an open that awaits it.")
        case _:
            raise RemoteProtocolError(
                "An empty session message; run the same version at both ends."
            )


def join_credit(
    performed: Sequence[actions.CloudAction],
) -> Iterator[actions.CloudAction | SendAckWithCredit]:
    """The same actions in the same order, each ack joined with a credit right behind it."""
    index = 0
    while index < len(performed):
        action = performed[index]
        index += 1
        if isinstance(action, actions.SendAck) and index < len(performed):
            following = performed[index]
            if isinstance(following, actions.SendCredit):
                index += 1
                yield SendAckWithCredit(action, following)
                continue
        yield action


def encode_cloud(action: CloudSend) -> bytes:
    """A SessionResponse, serialised."""
    response = transport_pb2.SessionResponse()
    match action:
        case actions.SendAccepted():
            response.accepted.CopyFrom(_accepted_message(action))
        case actions.SendCredit(credit_bytes):
            response.credit.credit_bytes = credit_bytes
        case actions.SendAck(received_bytes, arrival_us):
            response.ack.received_bytes = received_bytes
            response.ack.arrival_us = arrival_us
        case SendAckWithCredit(ack, credit):
            response.ack.received_bytes = ack.received_bytes
            response.ack.arrival_us = ack.arrival_us
            response.ack.credit_bytes = credit.credit_bytes
        case actions.SendToken(token):
            response.token.text = token.text
            response.token.token_id = token.token_id
        case actions.SendDone(summary):
            response.done.CopyFrom(_done_message(summary))
    return response.SerializeToString()


def decode_cloud(data: bytes) -> tuple[events.EdgePeerEvent, ...]:
    """What the edge's machine receives: one event, or an ack and the credit behind it.

    Raises:
        RemoteProtocolError: the bytes or a field make no sense.
    """
    response = decode(transport_pb2.SessionResponse, data)
    if not response.HasField("ack"):
        return (_answer_event(response),)
    ack = response.ack
    acked = events.Acked(ack.received_bytes, ack.arrival_us)
    if not ack.credit_bytes:
        return (acked,)
    return acked, events.CreditGranted(ack.credit_bytes)


def _answer_event(response: transport_pb2.SessionResponse) -> events.EdgePeerEvent:
    """Every event but an ack."""
    match response.WhichOneof("event"):
        case "credit":
            return events.CreditGranted(response.credit.credit_bytes)
        case "token":
            token = response.token
            return events.TokenReceived(AnswerToken(token.text, token.token_id))
        case "accepted":
            return _accepted(response.accepted)
        case "done":
            return events.AnswerDone(_summary(response.done))
        case _:
            raise RemoteProtocolError(
                "An empty session message; run the same version at both ends."
            )


def _accepted_message(action: actions.SendAccepted) -> transport_pb2.Accepted:
    message = transport_pb2.Accepted(
        context_state=STATE_TO_WIRE[action.context_state],
        resume_offset=action.resume_offset,
        credit_bytes=action.credit_bytes,
        queue_s=action.queue_s,
    )
    if (share := action.share) is not None:
        message.granted_bytes_per_s = share.rate_bytes_per_s
        message.recommended_mode = MODE_TO_WIRE[share.mode]
        message.recommended_retention = share.retention
        message.recommended_execution = EXECUTION_TO_WIRE[share.execution]
    return message


def _accepted(message: transport_pb2.Accepted) -> events.Accepted:
    share: UplinkShare | None = None
    if message.recommended_mode != types_pb2.MODE_UNSPECIFIED:
        share = UplinkShare(
            message.granted_bytes_per_s,
            mode_from_wire(message.recommended_mode),
            message.recommended_retention,
            execution_from_wire(message.recommended_execution),
        )
    return events.Accepted(
        _known(STATE_FROM_WIRE, message.context_state, "context state"),
        message.resume_offset,
        message.credit_bytes,
        message.queue_s,
        share,
    )


def _done_message(summary: AnswerSummary) -> transport_pb2.Done:
    return transport_pb2.Done(
        finish_reason=REASON_TO_WIRE[summary.finish_reason],
        answer_tokens=summary.answer_tokens,
        inject_s=summary.inject_s,
        prefill_s=summary.prefill_s,
        queue_s=summary.queue_s,
        decode_s=summary.decode_s,
        uplink_bytes=summary.uplink_bytes,
        execution=EXECUTION_TO_WIRE[summary.execution],
        numerics=summary.numerics,
        degradation=summary.degradation,
        context_tokens=summary.context_tokens,
        kept_tokens=summary.kept_tokens,
    )


def _summary(message: transport_pb2.Done) -> AnswerSummary:
    return AnswerSummary(
        finish_reason=_known(REASON_FROM_WIRE, message.finish_reason, "finish reason"),
        answer_tokens=message.answer_tokens,
        inject_s=message.inject_s,
        prefill_s=message.prefill_s,
        queue_s=message.queue_s,
        decode_s=message.decode_s,
        uplink_bytes=message.uplink_bytes,
        execution=execution_from_wire(message.execution),
        numerics=message.numerics,
        degradation=message.degradation,
        context_tokens=message.context_tokens,
        kept_tokens=message.kept_tokens,
    )


def _known(table: Mapping[int, ValueT], value: int, name: str) -> ValueT:
    found = table.get(value)
    if found is None:
        raise RemoteProtocolError(f"Unknown {name} {value}; run the same version at both ends.")
    return found
