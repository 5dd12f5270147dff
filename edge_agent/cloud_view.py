"""What an agent knows of its cloud server: from the registration, and from heartbeats since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scout.v1 import control_pb2, types_pb2

from scout_core.control.cost import CostModel, Stage, StageCost
from scout_core.errors import RemoteProtocolError
from scout_core.rpc.options import LEAST_MESSAGE_BYTES, MAX_MESSAGE_BYTES, largest_chunk_bytes
from scout_core.rpc.registration import ModelDescription, costs_from_messages, model_from_message


@dataclass(frozen=True, slots=True)
class CloudView:
    """The cloud as known now."""

    server_id: str
    model: ModelDescription
    initial_credit_bytes: int
    heartbeat_interval_s: float
    costs: CostModel
    queue_s: float = 0.0
    draining: bool = False
    uplink_scheduled: bool = False
    """The cloud decides who sends what and how fast: wait for its word."""
    largest_message_bytes: int = MAX_MESSAGE_BYTES
    """That it takes, on either stream; it refuses a larger one."""

    def chunk_bytes(self, configured_bytes: int) -> int:
        """The largest chunk or probe to send: as configured, or what the cloud takes if that is
        less."""
        return min(configured_bytes, largest_chunk_bytes(self.largest_message_bytes))


def view_of(registered: control_pb2.Registered) -> CloudView:
    """What the registration says. A cloud that does not know of limits takes what all do.

    Raises:
        RemoteProtocolError: the cloud takes messages too small to be of use.
        CodecError: its model's geometry is impossible.
    """
    largest_message_bytes = registered.largest_message_bytes or MAX_MESSAGE_BYTES
    if largest_message_bytes < LEAST_MESSAGE_BYTES:
        raise RemoteProtocolError(
            f"The cloud takes messages of {largest_message_bytes} bytes at most; set "
            f"largest_message_bytes there to {LEAST_MESSAGE_BYTES} or more."
        )
    return CloudView(
        server_id=registered.server_id,
        model=model_from_message(registered.model),
        initial_credit_bytes=registered.initial_credit_bytes,
        heartbeat_interval_s=registered.heartbeat_interval.ToMilliseconds() / 1_000,
        costs=CostModel(stage_costs(registered.costs)),
        uplink_scheduled=registered.uplink_scheduled,
        largest_message_bytes=min(largest_message_bytes, MAX_MESSAGE_BYTES),
    )


def stage_costs(messages: Iterable[types_pb2.StageCost]) -> list[StageCost]:
    """The stages that this version knows; a newer cloud may report more."""
    known = {stage.value: stage for stage in Stage}
    return [
        StageCost(known[figure.stage], figure.base_s, figure.per_token_s, figure.samples)
        for figure in costs_from_messages(messages)
        if figure.stage in known
    ]
