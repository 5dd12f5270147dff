"""An open whose question is too long for one message: cut at the edge, put together at the cloud.

A server may take small messages only (``Registered.largest_message_bytes``), and of what an open
carries only the question can be long. Its parts follow the open before anything else, so neither
state machine learns of them.
"""

from __future__ import annotations

from typing import Final

from scout.v1 import transport_pb2

from scout_core.errors import LocalProtocolError, RemoteProtocolError
from scout_core.protocol import events
from scout_core.protocol.opening import OpenParameters
from scout_core.rpc.messages import decode
from scout_core.rpc.open_wire import open_message, open_parameters
from scout_core.rpc.requests import MAX_QUESTION_CHARACTERS

LONGEST_CHARACTER_BYTES: Final = 4
MAX_QUESTION_BYTES: Final = MAX_QUESTION_CHARACTERS * LONGEST_CHARACTER_BYTES
PART_FRAMING_BYTES: Final = 16
"""Around the text of a part: two tags and two lengths; of an open, the field of the length."""


def cut_text(text: str, first_bytes: int, next_bytes: int) -> tuple[str, ...]:
    """Pieces of whole characters that make up the text.

    Args:
        text: any.
        first_bytes, next_bytes: of UTF-8, the most that the first piece and the others have; 4 or
            more, so that every piece has a character.
    """
    data, pieces, start, room = text.encode(), list[str](), 0, first_bytes
    while start < len(data):
        end = min(start + room, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(data[start:end].decode())
        start, room = end, next_bytes
    return tuple(pieces)


def encode_open(parameters: OpenParameters, largest_message_bytes: int) -> tuple[bytes, ...]:
    """Serialised SessionRequests, none larger than that: the open and the parts of its question.

    Raises:
        LocalProtocolError: not even the open without its question fits.
    """
    message = open_message(parameters)
    whole = transport_pb2.SessionRequest(open=message).SerializeToString()
    if len(whole) <= largest_message_bytes:
        return (whole,)
    question_bytes = len(parameters.question.encode())
    first_bytes = largest_message_bytes - (len(whole) - question_bytes) - PART_FRAMING_BYTES
    next_bytes = largest_message_bytes - PART_FRAMING_BYTES
    if first_bytes < LONGEST_CHARACTER_BYTES:
        raise LocalProtocolError(
            f"The open has {len(whole) - question_bytes} bytes beside its question, and the cloud "
            f"takes messages of {largest_message_bytes}; make fewer offers."
        )
    message.question, *parts = cut_text(parameters.question, first_bytes, next_bytes)
    message.question_bytes = question_bytes
    requests = [transport_pb2.SessionRequest(open=message)]
    requests += [
        transport_pb2.SessionRequest(question_part=transport_pb2.QuestionPart(text=part))
        for part in parts
    ]
    return tuple(request.SerializeToString() for request in requests)


class OpenAssembly:
    """The first messages of a stream, until they make up an open."""

    def __init__(self) -> None:
        self.received_bytes = 0
        """Of all messages taken."""
        self._open: transport_pb2.Open | None = None
        self._pieces: list[str] = []
        self._missing_bytes = 0

    def take(self, message: bytes) -> events.OpenReceived | None:
        """The next message; the open, if that completes it.

        Raises:
            RemoteProtocolError: it is not what has to come, or its fields make no sense.
        """
        self.received_bytes += len(message)
        request = decode(transport_pb2.SessionRequest, message)
        if self._open is None:
            if request.WhichOneof("event") != "open":
                raise RemoteProtocolError("The first session message must be `open`.")
            self._begin(request.open)
        elif request.WhichOneof("event") == "question_part" and request.question_part.text:
            self._add(request.question_part.text)
        else:
            raise RemoteProtocolError(
                f"{self._missing_bytes} bytes of the question are missing; send them in parts "
                "behind the open."
            )
        if self._open is None or self._missing_bytes:
            return None
        self._open.question = "".join(self._pieces)
        return events.OpenReceived(open_parameters(self._open))

    def _begin(self, message: transport_pb2.Open) -> None:
        if message.question_bytes > MAX_QUESTION_BYTES:
            raise RemoteProtocolError(
                f"A question of {message.question_bytes} bytes; at most {MAX_QUESTION_BYTES}."
            )
        self._open = message
        if message.question_bytes:
            self._missing_bytes = message.question_bytes
            self._add(message.question)
        else:
            self._pieces.append(message.question)

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        self._missing_bytes -= len(text.encode())
        if self._missing_bytes < 0:
            raise RemoteProtocolError("The question is longer than its open says.")
