"""The last requests and how they ended, as status tells it.

Owns how much is remembered; it neither serves a request nor decides what became of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from scout.v1 import control_pb2, types_pb2

from scout_core.modes import Mode, SessionId
from scout_core.rpc.messages import MODE_TO_WIRE

REMEMBERED_REQUESTS: Final = 16
OUTCOME_OK: Final = "OK"
OUTCOME_CANCELLED: Final = "CANCELLED"
"""The caller went away, or did not read its answer."""


@dataclass(frozen=True, slots=True)
class RequestResult:
    """How a request ended. What it did not come to is left out.

    Args:
        outcome: OK, CANCELLED or a reason of ``scout_core.errors``.
        session_id: of its last session; None if it was refused before it had one.
        mode: in which it ended; None: none had been chosen.
        retention: fraction of positions kept; 0 without a mode.
        payload_bytes: made for its sessions; where they failed, not all of it was sent.
        ttft_s: time to first token; 0: there was none.
        deadline_s: counted from its arrival; 0 if it was refused before that was read.
    """

    outcome: str
    session_id: SessionId | None = None
    mode: Mode | None = None
    retention: float = 0.0
    payload_bytes: int = 0
    ttft_s: float = 0.0
    deadline_s: float = 0.0


class RecentRequests:
    """The last ``REMEMBERED_REQUESTS`` requests, answered or not."""

    def __init__(self) -> None:
        self._results: deque[RequestResult] = deque(maxlen=REMEMBERED_REQUESTS)

    def add(self, result: RequestResult) -> None:
        """One more has ended; the oldest is forgotten."""
        self._results.append(result)

    def summaries(self) -> list[control_pb2.RequestSummary]:
        """Newest first."""
        return [_summary(result) for result in reversed(self._results)]


def _summary(result: RequestResult) -> control_pb2.RequestSummary:
    mode = result.mode
    return control_pb2.RequestSummary(
        session_id=result.session_id or "",
        mode=types_pb2.MODE_UNSPECIFIED if mode is None else MODE_TO_WIRE[mode],
        retention=result.retention,
        payload_bytes=result.payload_bytes,
        ttft_s=result.ttft_s,
        deadline_s=result.deadline_s,
        outcome=result.outcome,
    )
