"""Serialised messages to typed ones and back, and the enums that both worlds name.

Sessions and attachments exchange bytes (see ``stream``); here is where they become messages, and
where a peer's garbage becomes a RemoteProtocolError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from scout.v1 import types_pb2

from scout_core.errors import RemoteProtocolError
from scout_core.modes import Execution, Mode, PositionUnit

MessageT = TypeVar("MessageT", bound=Message)

MODE_TO_WIRE: Final[Mapping[Mode, types_pb2.Mode]] = {
    Mode.KV_BF16: types_pb2.MODE_KV_BF16,
    Mode.KV_INT8: types_pb2.MODE_KV_INT8,
    Mode.KV_INT4: types_pb2.MODE_KV_INT4,
    Mode.KV_SELECT: types_pb2.MODE_KV_SELECT,
    Mode.SCOUT: types_pb2.MODE_SCOUT,
}
MODE_FROM_WIRE: Final[Mapping[int, Mode]] = {wire: mode for mode, wire in MODE_TO_WIRE.items()}

EXECUTION_TO_WIRE: Final[Mapping[Execution | None, types_pb2.Execution]] = {
    None: types_pb2.EXECUTION_UNSPECIFIED,
    Execution.EVICT: types_pb2.EXECUTION_EVICT,
    Execution.SPARSE: types_pb2.EXECUTION_SPARSE,
}
EXECUTION_FROM_WIRE: Final[Mapping[int, Execution | None]] = {
    wire: execution for execution, wire in EXECUTION_TO_WIRE.items()
}

UNIT_TO_WIRE: Final[Mapping[PositionUnit, types_pb2.PositionUnit]] = {
    PositionUnit.CLOUD_TOKENS: types_pb2.POSITION_UNIT_CLOUD_TOKENS,
    PositionUnit.CHARACTERS: types_pb2.POSITION_UNIT_CHARACTERS,
}
UNIT_FROM_WIRE: Final[Mapping[int, PositionUnit]] = {
    types_pb2.POSITION_UNIT_UNSPECIFIED: PositionUnit.CLOUD_TOKENS,
    **{wire: unit for unit, wire in UNIT_TO_WIRE.items()},
}


def decode(message_class: type[MessageT], data: bytes) -> MessageT:
    """Parses one message.

    Raises:
        RemoteProtocolError: the bytes are not such a message.
    """
    message = message_class()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        name = message_class.DESCRIPTOR.full_name
        raise RemoteProtocolError(
            f"The peer sent bytes that are not a {name}; run the same version at both ends."
        ) from error
    return message


def mode_from_wire(value: int) -> Mode:
    """A concrete mode.

    Raises:
        RemoteProtocolError: unset, AUTO or unknown.
    """
    mode = MODE_FROM_WIRE.get(value)
    if mode is None:
        raise RemoteProtocolError(f"Mode {value} is not a transport mode; name one of the five.")
    return mode


def unit_from_wire(value: int) -> PositionUnit:
    """What a selection counts; unset is the cloud's tokens.

    Raises:
        RemoteProtocolError: unknown.
    """
    unit = UNIT_FROM_WIRE.get(value)
    if unit is None:
        raise RemoteProtocolError(
            f"Unknown position unit {value}; run the same version at both ends."
        )
    return unit


def execution_from_wire(value: int) -> Execution | None:
    """The execution, None where the sender leaves the choice.

    Raises:
        RemoteProtocolError: unknown value.
    """
    if value not in EXECUTION_FROM_WIRE:
        raise RemoteProtocolError(f"Execution {value} is unknown; use EVICT or SPARSE.")
    return EXECUTION_FROM_WIRE[value]
