"""What status remembers of ended requests, and how people are shown it."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from scout.v1 import control_pb2, types_pb2

from edge_agent.recent_requests import (
    OUTCOME_OK,
    REMEMBERED_REQUESTS,
    RecentRequests,
    RequestResult,
)
from scout_core.cli.status import view
from scout_core.errors import ContextTooLongError, OverloadedError
from scout_core.modes import Mode, SessionId

ANSWERED = RequestResult(OUTCOME_OK, SessionId("5e551041"), Mode.SCOUT, 0.5, 21, 0.25, 2.0)
FAILED = RequestResult(OverloadedError.reason, SessionId("f"), Mode.KV_INT8, 1.0, 900, 0.0, 2.0)
REFUSED = RequestResult(ContextTooLongError.reason)


def remembering(*results: RequestResult) -> RecentRequests:
    recent = RecentRequests()
    for result in results:
        recent.add(result)
    return recent


def test_failed_and_refused_requests_are_told_with_their_reason_newest_first() -> None:
    answered, failed, refused = remembering(REFUSED, FAILED, ANSWERED).summaries()
    assert (answered.outcome, answered.session_id, answered.ttft_s) == ("OK", "5e551041", 0.25)
    assert (failed.outcome, failed.mode) == ("OVERLOADED", types_pb2.MODE_KV_INT8)
    assert (failed.payload_bytes, failed.ttft_s) == (900, 0.0)
    assert refused == control_pb2.RequestSummary(outcome="CONTEXT_TOO_LONG")


def test_however_many_fail_only_the_last_are_remembered() -> None:
    recent = remembering(ANSWERED, *[REFUSED] * REMEMBERED_REQUESTS)
    assert [each.outcome for each in recent.summaries()] == [REFUSED.outcome] * 16
    recent.add(FAILED)
    assert len(recent.summaries()) == REMEMBERED_REQUESTS
    assert recent.summaries()[0].outcome == FAILED.outcome


def test_people_see_the_reason_and_no_figures_that_there_are_not() -> None:
    recent = remembering(ANSWERED, FAILED, REFUSED)
    edge = control_pb2.EdgeStatus(agent_id="edge", last_requests=recent.summaries())
    shown = StringIO()
    Console(file=shown, width=120).print(view(control_pb2.GetStatusResponse(edge=edge)))
    rows = [line.replace("│", " ").split() for line in shown.getvalue().splitlines()]
    assert ["-", "-", "-", "0", "-", "-", "CONTEXT_TOO_LONG"] in rows
    assert ["f", "kv_int8", "1.00", "900", "-", "2", "OVERLOADED"] in rows
    assert ["5e551041", "scout", "0.50", "21", "0.25", "2", "OK"] in rows
