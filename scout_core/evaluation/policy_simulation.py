"""One policy over one link, request by request, in virtual time.

Owns the order of events: idle probing, decision, edge computation, transfer, first token. Each
request sees the link alone (arrivals lie further apart than the longest deadline; a transfer later
than that no longer matters for its request and does not burden the next, which favours the fixed
KV modes). It does not know how results are summarised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from scout_core.control.cost import Stage
from scout_core.control.estimator import GoodputEstimator
from scout_core.control.forecast import TransferForecast
from scout_core.control.offers import CloudContext, Offer, kept_tokens
from scout_core.control.policies import OraclePolicy
from scout_core.control.policy import FIRST_BLOCK_SHARE, Decision, Policy, Situation
from scout_core.control.probe import ProbeBudget
from scout_core.control.rate_experts import RATE_FLOOR_BYTES_PER_S
from scout_core.evaluation.paper_pairs import Pair
from scout_core.evaluation.policy_links import Link
from scout_core.evaluation.policy_transfer import (
    LONGEST_OBSERVED_S,
    Sent,
    SwitchingTransfer,
    Watcher,
    Way,
    plain_transfer,
)
from scout_core.evaluation.policy_workload import PlannedRequest
from scout_core.modes import Mode
from scout_core.testbed.schedule import BITS_PER_BYTE, RateSchedule

ROUND_TRIP_S: Final = 0.03
FRAMING_BYTES: Final = 600
"""Open, finish and chunk headers: about what one session costs beside its payload."""
PROBE_TICK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request under one policy."""

    deadline_s: float
    context_tokens: int
    mode: Mode
    retention: float
    quality: float
    ttft_s: float
    payload_bytes: float
    probability: float
    switches: int
    arrival_s: float

    @property
    def met(self) -> bool:
        return self.ttft_s <= self.deadline_s

    @property
    def utility(self) -> float:
        return self.quality if self.met else 0.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy and how it is run.

    Attributes:
        name: in reports.
        policy: the policy; None for the oracle, which is built per link.
        learns: it looks at the forecast, so the estimator must be fed.
        switches: it may change the mode in mid-transfer.
        target: probability of meeting the deadline that it asks for.
        knows_link: it is told true transfer times in place of a forecast (but not true compute
            times): what no estimator can surpass.
    """

    name: str
    policy: Policy | None
    learns: bool = False
    switches: bool = False
    target: float = 0.9
    knows_link: bool = False


class KnownLink(TransferForecast):
    """The true link in a forecast's place: every probability is 0 or 1."""

    __slots__ = ("_arrival_s", "_schedule")

    def __init__(self, schedule: RateSchedule, arrival_s: float) -> None:
        super().__init__((), (), 0.0, ROUND_TRIP_S, known=True)
        object.__setattr__(self, "_schedule", schedule)
        object.__setattr__(self, "_arrival_s", arrival_s)

    def probability_within(
        self, payload_bytes: float, seconds: float, delay_s: float = 0.0
    ) -> float:
        return 1.0 if self.true_transfer_s(payload_bytes, delay_s) <= seconds else 0.0

    def transfer_time_s(self, payload_bytes: float, quantile: float) -> float:
        del quantile
        return self.true_transfer_s(payload_bytes, 0.0)

    @property
    def median_bytes_per_s(self) -> float:
        bits = self._schedule.bits_between(self._arrival_s, self._arrival_s + 1.0)
        return max(bits / BITS_PER_BYTE, RATE_FLOOR_BYTES_PER_S)

    def true_transfer_s(self, payload_bytes: float, delay_s: float) -> float:
        """Seconds of a payload that begins ``delay_s`` after arrival, framing and round trip in."""
        begin_s = self._arrival_s + delay_s
        size = payload_bytes + FRAMING_BYTES
        return self._schedule.finish_time(begin_s, size) - begin_s + ROUND_TRIP_S


@dataclass(slots=True)
class LinkRun:
    """One contender on one link."""

    link: Link
    pair: Pair
    contender: Contender
    estimator: GoodputEstimator = field(default_factory=GoodputEstimator)
    budget: ProbeBudget = field(default_factory=ProbeBudget)

    def outcomes(self, requests: Iterable[PlannedRequest]) -> Iterator[Outcome]:
        """Serves the requests in order."""
        watcher = Watcher(self.link.schedule, self.estimator)
        idle_since_s = 0.0
        for request in requests:
            if self.contender.learns:
                self._probe(watcher, idle_since_s, request.arrival_s)
            decision = self._decide(request)
            if self.contender.policy is None:
                # The oracle chose among the true offers; from here on the planned one is served.
                chosen = request.offers[request.true_offers.index(decision.offer)]
                decision = replace(decision, offer=chosen)
            sent, start_s = self._send(watcher, request, decision.offer)
            idle_since_s = min(sent.finished_at_s, start_s + LONGEST_OBSERVED_S)
            yield self._outcome(request, decision, sent, start_s)

    def _probe(self, watcher: Watcher, from_s: float, to_s: float) -> None:
        clock_s = from_s
        rate = self.estimator.forecast(clock_s).median_bytes_per_s
        while clock_s < to_s:
            size = self.budget.due(clock_s, rate)
            if size:
                end_s = self.link.schedule.finish_time(clock_s, size)
                watcher.watch(clock_s, min(end_s, to_s))
                rate = self.estimator.forecast(clock_s).median_bytes_per_s
            clock_s += PROBE_TICK_S

    def _decide(self, request: PlannedRequest) -> Decision:
        link = KnownLink(self.link.schedule, request.arrival_s)
        forecast = self.estimator.forecast(request.arrival_s, ROUND_TRIP_S)
        situation = Situation(
            forecast=link if self.contender.knows_link else forecast,
            deadline_s=request.deadline_s,
            cloud_queue_s=request.cloud_queue_s,
            round_trip_s=ROUND_TRIP_S,
            target_probability=self.contender.target,
        )
        if self.contender.policy is not None:
            return self.contender.policy.choose(request.offers, situation)
        oracle = OraclePolicy(link.true_transfer_s)
        return oracle.choose(request.true_offers, situation)

    def _send(self, watcher: Watcher, request: PlannedRequest, offer: Offer) -> tuple[Sent, float]:
        start_s = request.arrival_s + request.edge_factor * (
            offer.edge_s + offer.encode_s * FIRST_BLOCK_SHARE
        )
        way = way_of(offer)
        forecast = self.estimator.forecast(start_s, 0.0)
        if self.contender.switches and offer.mode.carries_kv:
            transfer = SwitchingTransfer(
                self.link.schedule,
                watcher,
                (way, *alternatives(self.pair, request, offer)),
                self.contender.target,
            )
            due_at_s = request.arrival_s + request.deadline_s - request.cloud_queue_s
            sent = transfer.run(way, start_s, due_at_s, ROUND_TRIP_S)
        else:
            sent = plain_transfer(self.link.schedule, way, start_s)
            if self.contender.learns:
                end_s = min(sent.finished_at_s, start_s + LONGEST_OBSERVED_S)
                if watcher.watch(start_s, end_s):
                    self.budget.on_activity(end_s)
        if self.contender.learns:
            self.estimator.settle(forecast, round(sent.payload_bytes), sent.finished_at_s - start_s)
        return sent, start_s

    def _outcome(
        self, request: PlannedRequest, decision: Decision, sent: Sent, start_s: float
    ) -> Outcome:
        offer = decision.offer
        transfer_s = sent.finished_at_s - start_s + ROUND_TRIP_S
        ttft_s = (
            start_s
            - request.arrival_s
            + max(transfer_s, offer.encode_s * request.edge_factor)
            + request.cloud_queue_s
            + sent.cloud_s * request.cloud_factor
        )
        return Outcome(
            deadline_s=request.deadline_s,
            context_tokens=request.facts.context_tokens,
            mode=sent.mode,
            retention=offer.retention,
            quality=sent.quality,
            ttft_s=ttft_s,
            payload_bytes=sent.payload_bytes,
            probability=decision.probability,
            switches=sent.switches,
            arrival_s=request.arrival_s,
        )


def way_of(offer: Offer) -> Way:
    """The offer as a way of sending, framing included."""
    return Way(
        mode=offer.mode,
        retention=offer.retention,
        payload_bytes=offer.payload_bytes + FRAMING_BYTES,
        quality=offer.quality,
        encode_s=offer.encode_s,
        fixed_s=offer.cloud_s,
    )


def alternatives(pair: Pair, request: PlannedRequest, offer: Offer) -> Iterator[Way]:
    """Other ways for the rest of a KV transfer: the other full modes, and the tokens."""
    if offer.mode is not Mode.KV_SELECT:
        for other in request.offers:
            full_kv = other.mode.carries_kv and other.mode is not Mode.KV_SELECT
            if full_kv and other.mode is not offer.mode:
                yield way_of(other)
    yield _tokens_finish(pair, request, offer)


def _tokens_finish(pair: Pair, request: PlannedRequest, offer: Offer) -> Way:
    facts, costs, sizes = request.facts, pair.sources.cloud_costs, pair.sources.sizes
    kept = kept_tokens(facts.context_tokens, offer.retention)
    prefill = Stage.CLOUD_PREFILL if offer.retention >= 1.0 else Stage.CLOUD_SPARSE
    base_s = costs.predict(prefill, 1)
    share_s = costs.predict(prefill, facts.head_tokens + kept) - base_s
    if facts.cloud_context is CloudContext.KV:
        base_s, share_s = 0.0, 0.0
    absent = facts.cloud_context is CloudContext.ABSENT
    return Way(
        mode=Mode.SCOUT,
        retention=offer.retention,
        payload_bytes=sizes.token_bytes(kept) if absent else 1.0,
        quality=offer.quality,
        encode_s=0.0,
        fixed_s=offer.cloud_s + base_s,
        share_s=share_s,
    )
