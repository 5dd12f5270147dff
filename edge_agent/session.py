"""One session for a question: the client that runs it, the payload it sends, and what comes back.

Owns putting these together and the wait for the next outcome. It neither plans nor decides what a
failure leads to (``attempts`` does), and makes no message for the application.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import grpc

from edge_agent.attachment import Attachment
from edge_agent.attempts import Patience
from edge_agent.guidance import Guidance
from edge_agent.host import EdgeHost
from edge_agent.opening import PlannedSession, session_options
from edge_agent.payload import PayloadSource
from edge_agent.steering import Steering, at_once
from scout_core.control.forecast import TransferForecast
from scout_core.protocol import actions
from scout_core.rpc.session_client import Outcome, SessionClient


@dataclass(frozen=True, slots=True)
class QuestionSession:
    """What serves one planned session.

    Attributes:
        planned: what was decided before it began.
        client, source: run it and make its payload.
        forecast: of the link, when it began.
        outcomes: of the session so far; None: there will be no more.
        guidance: where the cloud's scheduler may choose.
    """

    planned: PlannedSession
    client: SessionClient
    source: PayloadSource
    forecast: TransferForecast
    outcomes: asyncio.Queue[Outcome | None]
    guidance: Guidance | None

    async def next_outcome(self, patience: Patience | None) -> Outcome | None:
        """The next outcome; None: there will be no more.

        Args:
            patience: with the first token; None once it is there.

        Raises:
            PeerTimeoutError: the first token is overdue and the cloud is silent.
        """
        while patience is not None:
            heard_s = self.client.heard_s
            wait_s = patience.ends_at(heard_s) - time.monotonic()
            try:
                async with asyncio.timeout(wait_s):
                    return await self.outcomes.get()
            except TimeoutError:
                if self.client.heard_s == heard_s:
                    raise patience.overdue(heard_s, time.monotonic()) from None
        return await self.outcomes.get()


def session_of(
    planned: PlannedSession, host: EdgeHost, attachment: Attachment, channel: grpc.aio.Channel
) -> QuestionSession:
    """All that a planned session needs, on the data ``channel``; nothing is sent yet."""
    outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue()
    guidance = Guidance(planned.plan) if planned.is_guided else None

    def on_outcome(outcome: Outcome) -> None:
        # At once, and not when the application takes what came before: the payload waits.
        if guidance is not None and isinstance(outcome, actions.SessionAccepted):
            guidance.accept(outcome.share)
        outcomes.put_nowait(outcome)

    forecast = host.estimator.forecast(time.monotonic(), attachment.round_trip_s)
    options = session_options(host, planned.view, forecast)
    client = SessionClient(channel, options, on_outcome, host.estimator)
    machine = client.machine
    steering = Steering(
        host,
        planned.view,
        planned.question,
        planned.plan,
        lambda: machine.unacked_bytes + machine.unsent_bytes,
        attachment.round_trip_s,
        guidance,
        at_once if guidance is None else client.credited,
    )
    source = PayloadSource(host, planned.question, planned.plan, steering)
    return QuestionSession(planned, client, source, forecast, outcomes, guidance)
