"""What the cloud's session delivers, acknowledges and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from protocol_examples import (
    BLOCK,
    ONE_TOKEN_ANSWER,
    OTHER_PARAMETERS,
    PARAMETERS,
    TOKEN,
    chunk,
    finish,
)

from scout_core.errors import (
    ChunkError,
    CreditExceededError,
    DigestMismatchError,
    LocalProtocolError,
    OverloadedError,
    PayloadError,
    PeerUnavailableError,
    ProtocolError,
    RemoteProtocolError,
)
from scout_core.modes import Mode
from scout_core.protocol.actions import (
    ApplySwitch,
    CloudAction,
    CommitPayload,
    DeliverBlock,
    Discard,
    Fail,
    SendAccepted,
    SendAck,
    SendCredit,
    SendDone,
    SendToken,
)
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.cloud_session import CloudSession
from scout_core.protocol.cloud_states import CloudState
from scout_core.protocol.credit import WINDOW_START_BYTES, CreditPolicy
from scout_core.protocol.events import (
    Abort,
    AcceptDecided,
    AnswerFinished,
    ChunkReceived,
    CloudEvent,
    ConnectionLost,
    FinishReceived,
    OpenReceived,
    RateAllocated,
    Resumed,
    StreamEnded,
    SwitchReceived,
    TokenProduced,
)
from scout_core.protocol.opening import ContextState, Offer
from scout_core.protocol.payload_receiver import MAX_SWITCHES, ReceivePolicy

LOST = ConnectionLost(PeerUnavailableError("The link broke."))
ACCEPTED = SendAccepted(ContextState.TOKENS, 0, WINDOW_START_BYTES, 0.5)
SWITCH = SwitchReceived(Mode.KV_INT4, 1.0, len(BLOCK), "deadline_forecast")


def opened() -> CloudSession:
    session = CloudSession()
    session.receive(OpenReceived(PARAMETERS), 0.0)
    return session


def receiving(policy: ReceivePolicy | None = None) -> CloudSession:
    session = CloudSession(policy)
    session.receive(OpenReceived(PARAMETERS), 0.0)
    session.receive(AcceptDecided(ContextState.TOKENS, queue_s=0.5), 0.0)
    return session


def bodies(actions: tuple[CloudAction, ...]) -> list[bytes]:
    return [action.block.body for action in actions if isinstance(action, DeliverBlock)]


def test_payload_before_the_decision_is_kept_and_delivered_after_accepted() -> None:
    session = opened()
    assert session.receive(chunk(0, BLOCK), 0.0) == ()
    assert session.receive(finish(BLOCK), 0.0) == ()
    assert session.receive(StreamEnded(), 0.0) == ()
    actions = session.receive(AcceptDecided(ContextState.TOKENS, queue_s=0.5), 0.1)
    assert actions[0] == ACCEPTED
    assert actions[1] == SendAck(len(BLOCK), 0)
    assert bodies(actions) == [b"packed token ids"]
    assert actions[-1] == CommitPayload(len(BLOCK), finish(BLOCK).digest)
    assert session.state is CloudState.ANSWERING


def test_silence_is_expected_until_the_first_credit_if_every_offer_has_a_payload() -> None:
    offers = (Offer(Mode.KV_BF16, 1.0, 9_000, 1.0, 0.0), Offer(Mode.SCOUT, 1.0, 40, 0.9, 0.0))
    policy = ReceivePolicy(CreditPolicy(initial_bytes=0))
    session = CloudSession(policy)
    session.receive(OpenReceived(replace(PARAMETERS, offers=offers)), 0.0)
    assert session.expects_silence
    accept = AcceptDecided(ContextState.TOKENS, rate_bytes_per_s=0.0)
    session.receive(accept, 0.0)
    assert session.expects_silence
    session.receive(RateAllocated(1e6), 0.1)
    session.tick(0.2)
    assert session.credit_bytes > 0
    assert not session.expects_silence
    for silent in ((), (*offers, Offer(Mode.SCOUT, 1.0, 0, 0.9, 0.0))):
        # An edge that may have nothing to send finishes without credit.
        other = CloudSession(policy)
        other.receive(OpenReceived(replace(PARAMETERS, offers=silent)), 0.0)
        assert not other.expects_silence
    assert not opened().expects_silence


def test_stream_that_ends_without_finish_commits_nothing() -> None:
    for session in (opened(), receiving()):
        session.receive(chunk(0, BLOCK), 0.0)
        actions = session.receive(StreamEnded(), 0.1)
        assert not [action for action in actions if isinstance(action, CommitPayload)]
        assert session.state in (CloudState.DISCARDED, CloudState.SUSPENDED)


def test_committed_answer_is_sent() -> None:
    session = receiving()
    session.receive(chunk(0, BLOCK), 0.0)
    (commit,) = session.receive(finish(BLOCK), 0.1)
    assert commit == CommitPayload(len(BLOCK), finish(BLOCK).digest)
    assert session.receive(TokenProduced(TOKEN), 0.2) == (SendToken(TOKEN),)
    assert session.receive(AnswerFinished(ONE_TOKEN_ANSWER), 0.3) == (SendDone(ONE_TOKEN_ANSWER),)
    assert session.state is CloudState.COMPLETE


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (ChunkReceived(0, BLOCK, 1), ChunkError),
        (chunk(0, b""), ChunkError),
        (chunk(WINDOW_START_BYTES, b"x"), CreditExceededError),
        (chunk(0, bytes((9, 9))), PayloadError),
        (finish(b"x"), DigestMismatchError),
        (FinishReceived(0, bytes(16)), DigestMismatchError),
        (OpenReceived(PARAMETERS), RemoteProtocolError),
        (Resumed(OTHER_PARAMETERS), RemoteProtocolError),
    ],
)
def test_nonsense_fails_the_session_with_its_reason(
    event: CloudEvent, error: type[ProtocolError]
) -> None:
    session = receiving()
    with pytest.raises(error):
        session.receive(event, 0.1)
    assert session.state is CloudState.FAILED
    assert session.receive(chunk(0, BLOCK), 0.2) == ()


def test_chunk_above_a_mebibyte_is_refused() -> None:
    session = receiving(ReceivePolicy(CreditPolicy(initial_bytes=4 << 20)))
    with pytest.raises(ChunkError, match="must have"):
        session.receive(chunk(0, bytes((1 << 20) + 1)), 0.1)


def test_finish_inside_a_block_or_before_a_gap_is_refused() -> None:
    cut = receiving()
    cut.receive(chunk(0, BLOCK[:-1]), 0.0)
    with pytest.raises(PayloadError, match="into a block"):
        cut.receive(finish(BLOCK[:-1]), 0.1)
    gap = receiving()
    gap.receive(chunk(1, BLOCK[1:]), 0.0)
    with pytest.raises(DigestMismatchError):
        gap.receive(finish(BLOCK), 0.1)


@pytest.mark.parametrize("event", [chunk(0, BLOCK), finish(BLOCK), SWITCH])
def test_nothing_of_the_payload_may_follow_finish_even_before_the_decision(
    event: CloudEvent,
) -> None:
    session = opened()
    session.receive(chunk(0, BLOCK), 0.0)
    session.receive(finish(BLOCK), 0.0)
    with pytest.raises(RemoteProtocolError, match="finish"):
        session.receive(event, 0.1)


def test_switch_is_applied_between_the_blocks_it_divides() -> None:
    session = receiving()
    other = encode_block(BlockKind.KV, 4, 0, 1, b"cheaper")
    session.receive(SWITCH, 0.0)
    actions = session.receive(chunk(0, BLOCK + other), 0.0)
    kinds = [type(a) for a in actions if isinstance(a, DeliverBlock | ApplySwitch)]
    assert kinds == [DeliverBlock, ApplySwitch, DeliverBlock]
    assert ApplySwitch(Mode.KV_INT4, 1.0, len(BLOCK), "deadline_forecast") in actions


def test_switch_at_the_end_is_applied_before_the_commit() -> None:
    session = receiving()
    session.receive(chunk(0, BLOCK), 0.0)
    session.receive(SWITCH, 0.0)
    actions = session.receive(finish(BLOCK), 0.1)
    assert [type(action) for action in actions[-2:]] == [ApplySwitch, CommitPayload]


def test_switch_that_cannot_be_is_refused() -> None:
    late = receiving()
    late.receive(chunk(0, BLOCK + BLOCK[:1]), 0.0)
    with pytest.raises(RemoteProtocolError, match="too late"):
        late.receive(SWITCH, 0.1)
    inside = receiving()
    inside.receive(replace(SWITCH, offset=3), 0.0)
    with pytest.raises(RemoteProtocolError, match="inside the block"):
        inside.receive(chunk(0, BLOCK), 0.1)
    beyond = receiving()
    beyond.receive(SWITCH, 0.0)
    with pytest.raises(RemoteProtocolError, match="beyond the end"):
        beyond.receive(finish(b""), 0.1)
    backwards = receiving()
    backwards.receive(SWITCH, 0.0)
    with pytest.raises(RemoteProtocolError, match="too late"):
        backwards.receive(replace(SWITCH, offset=1), 0.1)
    many = receiving()
    for index in range(MAX_SWITCHES):
        many.receive(replace(SWITCH, offset=index), 0.0)
    with pytest.raises(RemoteProtocolError, match="More than"):
        many.receive(replace(SWITCH, offset=MAX_SWITCHES), 0.1)


def test_switch_that_is_known_is_ignored() -> None:
    session = receiving()
    session.receive(SWITCH, 0.0)
    session.receive(chunk(0, BLOCK + BLOCK), 0.0)
    assert session.receive(SWITCH, 0.1) == ()
    assert session.state is CloudState.RECEIVING


def test_acks_come_at_once_on_a_slow_link_and_together_on_a_fast_one() -> None:
    session = receiving()
    assert session.receive(chunk(0, BLOCK[:5]), 0.0) == (SendAck(5, 0),)
    assert session.receive(chunk(5, BLOCK[5:8]), 0.004) == ()
    assert session.next_deadline(0.004) == 0.01
    (delivered,) = session.receive(chunk(8, BLOCK[8:]), 0.008)
    assert isinstance(delivered, DeliverBlock)
    assert session.tick(0.01) == (SendAck(len(BLOCK), 8000),)
    assert session.next_deadline(0.01) == 1.51


def test_credit_follows_an_ack_of_the_same_bytes() -> None:
    session = receiving()
    big = encode_block(BlockKind.KV, 1, 0, 1, bytes(WINDOW_START_BYTES))
    size = WINDOW_START_BYTES // 4
    actions = session.receive(chunk(0, big[:size]), 0.0)
    assert actions == (SendAck(size, 0), SendCredit(WINDOW_START_BYTES + size))
    assert session.credit_bytes == WINDOW_START_BYTES + size


def test_allocated_rate_paces_the_credit() -> None:
    session = receiving()
    session.receive(RateAllocated(40_000.0), 0.0)
    big = encode_block(BlockKind.KV, 1, 0, 1, bytes(WINDOW_START_BYTES))
    assert session.receive(chunk(0, big[:65536]), 0.0) == (SendAck(65536, 0),)
    at = session.next_deadline(0.0)
    assert at == pytest.approx(4096 / 40_000.0)
    assert session.tick(0.1024) == (SendCredit(WINDOW_START_BYTES + 4096),)


def test_lifted_pacing_grants_at_once() -> None:
    session = receiving()
    session.receive(RateAllocated(40_000.0), 0.0)
    big = encode_block(BlockKind.KV, 1, 0, 1, bytes(WINDOW_START_BYTES))
    session.receive(chunk(0, big[:65536]), 0.0)
    assert session.receive(RateAllocated(None), 0.01) == (SendCredit(WINDOW_START_BYTES + 65536),)


def test_resume_says_where_to_continue_and_forgets_what_waited() -> None:
    session = receiving()
    session.receive(chunk(0, BLOCK[:6]), 0.0)
    session.receive(chunk(8, BLOCK[8:]), 0.0)
    assert session.waiting_bytes == len(BLOCK) - 8
    session.receive(LOST, 1.0)
    later = replace(PARAMETERS, mode=Mode.KV_INT4, deadline_s=-0.5)
    assert session.receive(Resumed(later), 2.0) == (
        SendAccepted(ContextState.TOKENS, 6, WINDOW_START_BYTES, 0.5),
    )
    assert session.parameters == later
    assert session.waiting_bytes == 0
    assert bodies(session.receive(chunk(6, BLOCK[6:]), 2.1)) == [b"packed token ids"]
    end = finish(BLOCK[:6], BLOCK[6:])
    assert session.receive(end, 2.2)[-1] == CommitPayload(len(BLOCK), end.digest)


def test_stream_may_be_replaced_before_its_loss_is_noticed() -> None:
    session = receiving()
    session.receive(chunk(0, BLOCK[:6]), 0.0)
    (again,) = session.receive(Resumed(PARAMETERS), 2.0)
    assert again == SendAccepted(ContextState.TOKENS, 6, WINDOW_START_BYTES, 0.5)
    assert session.state is CloudState.RECEIVING


def test_answer_goes_on_with_nobody_connected_and_is_repeated() -> None:
    session = receiving()
    session.receive(finish(b""), 0.0)
    session.receive(TokenProduced(TOKEN), 0.1)
    session.receive(LOST, 0.2)
    assert session.receive(TokenProduced(TOKEN), 0.3) == ()
    actions = session.receive(Resumed(PARAMETERS), 0.4)
    assert isinstance(actions[0], SendAccepted)
    assert actions[1:] == (SendToken(TOKEN), SendToken(TOKEN))
    assert session.state is CloudState.ANSWERING


def test_complete_answer_whose_end_was_lost_is_repeated() -> None:
    session = receiving()
    session.receive(finish(b""), 0.0)
    session.receive(TokenProduced(TOKEN), 0.1)
    session.receive(LOST, 0.2)
    assert session.receive(AnswerFinished(ONE_TOKEN_ANSWER), 0.3) == ()
    actions = session.receive(Resumed(PARAMETERS), 0.4)
    assert actions[1:] == (SendToken(TOKEN), SendDone(ONE_TOKEN_ANSWER))
    assert session.receive(finish(b""), 0.5) == ()
    assert session.tick(30.2) == (Discard(),)


def test_another_payload_cannot_be_finished_on_a_resumed_stream() -> None:
    session = receiving()
    session.receive(finish(b""), 0.0)
    session.receive(Resumed(PARAMETERS), 0.1)
    with pytest.raises(DigestMismatchError, match="another payload"):
        session.receive(finish(BLOCK), 0.2)


def test_summary_must_count_the_tokens_produced() -> None:
    session = receiving()
    session.receive(finish(b""), 0.0)
    with pytest.raises(LocalProtocolError, match="counts 1"):
        session.receive(AnswerFinished(ONE_TOKEN_ANSWER), 0.1)


def test_abort_tells_the_edge_and_frees_the_payload() -> None:
    session = receiving()
    session.receive(chunk(3, BLOCK), 0.0)
    error = OverloadedError("The store is full; retry later.")
    assert session.receive(Abort(error), 0.1) == (Fail(error), Discard())
    assert session.waiting_bytes == 0
    assert not session.is_open
