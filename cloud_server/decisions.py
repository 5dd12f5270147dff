"""What the scheduler decided, carried out: rates, acceptances, refusals and reports.

Owns which session and which control stream an action is for, and what each is told. It does not
know when the scheduler runs nor how it chooses. That nobody sends more than its share is the
session's credit, paced at the rate given here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

import structlog

from cloud_server.metrics import CloudMetrics
from cloud_server.scheduled_session import ScheduledSession, refusal
from cloud_server.seats import Advice, Seating, UplinkSeat
from cloud_server.session_books import SessionBooks
from scout_core.allocation.events import Action, Grant, Reject, Report, ReportKind
from scout_core.allocation.offer import GroupId
from scout_core.errors import CreditExceededError, OverloadedError, PeerTimeoutError
from scout_core.modes import AgentId
from scout_core.protocol import events

NO_GROUP: Final = GroupId("")
"""Of a report about an agent that has left."""
log = structlog.get_logger("scout.cloud.uplink")


class Decisions:
    """Tells sessions, agents, log and metrics.

    Args:
        books: the sessions; those that end here are removed.
        seating: the agents.
        metrics: counts every decision.
        forget_after_s: for the wording of an end without progress.
    """

    def __init__(
        self, books: SessionBooks, seating: Seating, metrics: CloudMetrics, forget_after_s: float
    ) -> None:
        self._books = books
        self._seating = seating
        self._metrics = metrics
        self._forget_after_s = forget_after_s

    def carry_out(self, actions: tuple[Action, ...], now: float) -> None:
        """In order: shares are taken before they are given."""
        for action in actions:
            session = self._books.find(action.session) if action.session else None
            match action:
                case Grant():
                    if session is not None:
                        self._grant(session, action, now)
                case Reject():
                    if session is not None:
                        self._reject(session, action, now)
                case Report():
                    self.report(action, self._group_of(session, action.agent))
                    if session is not None:
                        self._act_on(action.kind, session, now)
                case _:
                    assert_never(action)

    def set_rate(self, session: ScheduledSession, rate_bytes_per_s: float, now: float) -> None:
        """Paces the session's credit from now on; one that is not accepted yet has none.

        One whose share is taken back before it had any credit gets none: with a few bytes of it a
        block would be coded that then waits for its turn, however it is wanted by then.
        """
        if session.accepted and session.rate_bytes_per_s != rate_bytes_per_s:
            releases = session.has_credit or session.is_promised(now)
            session.port.post(events.RateAllocated(rate_bytes_per_s, releases))
        session.rate_bytes_per_s = rate_bytes_per_s

    def release(self, session: ScheduledSession) -> None:
        """Its agent has moved to an uplink that is not scheduled: it is paced no more."""
        self._books.remove(session)
        opened = events.RateAllocated(None) if session.accepted else session.opening.accept
        session.port.post(opened)

    def expel(self, session: ScheduledSession) -> bool:
        """Ends a session that has sent more than it offered; without more credit it could only
        wait. False: it was gone already."""
        if not self._books.remove(session):
            return False
        opening = session.opening
        offered = max(each.offer.payload_bytes for each in session.alternatives)
        excess = float(session.booked_bytes - offered)
        kind = ReportKind.BEYOND_OFFER
        self.report(Report(kind, opening.agent, opening.session_id, excess), session.seat.group)
        error = CreditExceededError(
            f"The payload is larger than any of the offers ({offered} bytes); declare what is sent."
        )
        session.port.post(events.Abort(error))
        return True

    def contain(self, agent: AgentId, group: GroupId, shortest_s: float, now: float) -> None:
        """The agent sent beyond its credit: it is reported and kept out."""
        self._seating.keep_out(agent, shortest_s, now)
        self.report(Report(ReportKind.BEYOND_GRANT, agent, None), group)

    def expect_welcome(self, seat: UplinkSeat, now: float) -> None:
        """Raises:
        OverloadedError: the agent is kept out for having exceeded its credit.
        """
        try:
            self._seating.expect_welcome(seat.agent, now)
        except OverloadedError:
            self._metrics.turned_away(seat.group)
            raise

    def report(self, report: Report, group: GroupId) -> None:
        """A log line and a metric."""
        self._metrics.reported(group, report)
        log.warning(
            "uplink_reported",
            kind=report.kind.value,
            group=group,
            agent=report.agent,
            session=report.session,
            amount=round(report.amount, 3),
        )

    def _group_of(self, session: ScheduledSession | None, agent: AgentId) -> GroupId:
        if session is not None:
            return session.seat.group
        seat = self._seating.find(agent)
        return NO_GROUP if seat is None else seat.group

    def _grant(self, session: ScheduledSession, grant: Grant, now: float) -> None:
        seat, moved = session.seat, session.offer != grant.offer
        session.offer = grant.offer
        self._metrics.granted(seat.group, seat.tenant, grant)
        if session.accepted:
            self.set_rate(session, grant.rate_bytes_per_s, now)
            if moved:
                lease_s = grant.expires_at_s - now
                seat.advise(Advice(session.opening.session_id, session.share(), lease_s))
            return
        session.accepted, session.asked = True, grant.offer
        session.rate_bytes_per_s = grant.rate_bytes_per_s
        self._metrics.decision_s.observe(now - session.opened_s)
        self._metrics.recommended(seat.group, seat.tenant, grant.mode)
        session.port.post(
            replace(
                session.opening.accept,
                rate_bytes_per_s=grant.rate_bytes_per_s,
                share=session.share(),
            )
        )

    def _reject(self, session: ScheduledSession, reject: Reject, now: float) -> None:
        opening = session.opening
        self._metrics.rejected(session.seat.group, opening.tenant, reject)
        self._books.remove(session)
        retry_after_s = round(max(reject.retry_at_s - now, 0.0), 3)
        earliest_s = round(max(reject.earliest_at_s - now, 0.0), 3)
        log.warning(
            "session_rejected",
            session=opening.session_id,
            agent=opening.agent,
            cause=reject.cause.value,
            retry_after_s=retry_after_s,
            earliest_s=earliest_s,
        )
        session.port.post(events.Abort(refusal(reject.cause, retry_after_s, earliest_s)))

    def _act_on(self, kind: ReportKind, session: ScheduledSession, now: float) -> None:
        match kind:
            case ReportKind.LEASE_EXPIRED:
                self.set_rate(session, 0.0, now)
            case ReportKind.FORGOTTEN:
                self._books.remove(session)
                error = PeerTimeoutError(
                    "The deadline has passed and no payload came for "
                    f"{self._forget_after_s:g} s; ask again."
                )
                session.port.post(events.Abort(error))
            case (
                ReportKind.DEADLINE_LOST
                | ReportKind.DEADLINE_REGAINED
                | ReportKind.BEYOND_GRANT
                | ReportKind.BEYOND_OFFER
            ):
                return  # the grants that follow say what becomes of it
            case _:
                assert_never(kind)
