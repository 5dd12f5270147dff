"""Acks and credit on the wire: one message where one is due right behind the other."""

from __future__ import annotations

from scout_core.protocol.actions import CloudAction, SendAck, SendCredit
from scout_core.protocol.events import Acked, CreditGranted
from scout_core.rpc.session_wire import (
    SendAckWithCredit,
    decode_cloud,
    encode_cloud,
    join_credit,
)

ACK = SendAck(10, 77)
CREDIT = SendCredit(1_000)


def test_an_ack_and_the_credit_behind_it_are_one_message_and_two_events() -> None:
    joined = tuple(join_credit((ACK, CREDIT)))
    assert joined == (SendAckWithCredit(ACK, CREDIT),)
    message = encode_cloud(SendAckWithCredit(ACK, CREDIT))
    assert decode_cloud(message) == (Acked(10, 77), CreditGranted(1_000))


def test_whatever_is_not_behind_an_ack_stays_as_it_is() -> None:
    performed: tuple[CloudAction, ...] = (CREDIT, ACK, ACK, CREDIT, ACK)
    assert tuple(join_credit(performed)) == (CREDIT, ACK, SendAckWithCredit(ACK, CREDIT), ACK)


def test_an_ack_and_a_credit_alone_are_one_event_each() -> None:
    assert decode_cloud(encode_cloud(ACK)) == (Acked(10, 77),)
    assert decode_cloud(encode_cloud(CREDIT)) == (CreditGranted(1_000),)
