"""The attempts of one request: which failures earn another one, how it is asked, what it cost.

Owns two decisions: whether a failed session is followed by a second one, and when a request without
a first token is given up. It starts no session and reads no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent.planning import Question
from scout_core.errors import (
    PeerTimeoutError,
    PeerUnavailableError,
    ScoutError,
    UnknownContextError,
)
from scout_core.modes import Mode
from scout_core.rpc.transfer_watch import SessionMeasurements

SILENCE_S: Final = 2.5
"""A cloud that has said nothing for so long is not reachable: it repeats its last ack after 1.5 s
(``scout_core.protocol.cloud_session.CloudTimeouts.keepalive_s``)."""
RESTARTED: Final = (
    "the cloud restarted and lost this session: asked again from the tokens (scout, retention 1)"
)
FORGOTTEN: Final = "the cloud lost the context during the request: asked again with its tokens"


def is_lost_session(error: ScoutError) -> bool:
    """Whether the cloud does not know the session any more, though it answers."""
    return isinstance(error, PeerUnavailableError) and "resume_offset" in error.details


@dataclass(slots=True)
class Attempts:
    """What became of the sessions of one question so far.

    Args:
        question: as the application asked it.
        delivered_tokens: answer tokens that the application has got.
        uplink_bytes, downlink_bytes, payload_bytes: spent on sessions that failed.
        degradation: what the response says about them.
    """

    question: Question
    delivered_tokens: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    payload_bytes: int = 0
    degradation: list[str] = field(default_factory=list[str])
    _corrected: bool = False
    _restarted: bool = False

    def again(
        self, error: ScoutError, measured: SessionMeasurements, payload_bytes: int
    ) -> Question:
        """The question for one more session after ``error``; or raises ``error``.

        An answer that has begun is not begun again: another mode could continue it otherwise. A
        mode that the caller forced is not changed either.
        """
        if self.delivered_tokens:
            error.details.setdefault("delivered_tokens", str(self.delivered_tokens))
            raise error
        match error:
            case UnknownContextError() if not self._corrected:
                self._corrected = True
                if measured.resumes:
                    self.degradation.append(FORGOTTEN)
                question = self.question
            case PeerUnavailableError() if (
                is_lost_session(error)
                and self.question.parameters.mode is None
                and not self._restarted
            ):
                self._restarted = True
                payload_bytes = int(error.details["acked_bytes"])  # more was made, and not sent
                self.degradation.append(f"{RESTARTED}; {payload_bytes} payload bytes were lost")
                question = _from_tokens(self.question)
            case _:
                raise error
        self.uplink_bytes += measured.uplink_bytes
        self.downlink_bytes += measured.downlink_bytes
        self.payload_bytes += payload_bytes
        return question


def _from_tokens(question: Question) -> Question:
    parameters = replace(question.parameters, mode=Mode.SCOUT, retention=1.0, execution=None)
    return replace(question, parameters=parameters)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a question waits for its first token.

    Args:
        due_s: when the first token is due, ``time.monotonic`` seconds.
        grace_s: how long after that it is waited for on a path that may be dead.
    """

    due_s: float
    grace_s: float

    def ends_at(self, heard_s: float = -math.inf) -> float:
        """When to give up if nothing is heard after ``heard_s``. While the cloud is heard the
        answer is only late, and a late answer is better than none."""
        return max(self.due_s + self.grace_s, heard_s + SILENCE_S)

    def overdue(self, heard_s: float, now: float) -> PeerTimeoutError:
        """What the application is told."""
        return PeerTimeoutError(
            f"The first token was due {now - self.due_s:.1f} s ago and the cloud has not been "
            f"heard for {now - heard_s:.1f} s: the link is down. Ask again when it is back, or "
            "raise overdue_grace_s to wait for late answers.",
            overdue_s=round(now - self.due_s, 3),
            silent_s=round(now - heard_s, 3),
        )
