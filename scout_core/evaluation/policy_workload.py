"""The requests of the policy study: the same for every policy.

Owns arrivals, lengths, deadlines and what either end holds already. It does not know links' rates
or policies. All randomness comes from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from scout_core.control.offers import CloudContext, Offer, RequestFacts, feasible_offers
from scout_core.evaluation.paper_pairs import Pair

DEADLINES_S: Final = (0.5, 1.0, 2.0, 5.0)
HEAD_TOKENS: Final = 24
TAIL_TOKENS: Final = 30


@dataclass(frozen=True, slots=True)
class Workload:
    """What requests are like.

    Attributes:
        deadlines_s: chosen from with equal chances.
        gap_s: between arrivals, uniform; longer than the longest deadline, so that requests do not
            overlap.
        warm_edge_share: share of requests whose context the edge has processed before (KV and
            scout KV cached).
        cloud_shares: what the cloud holds, with its share.
        queue_share: share of requests that wait for the cloud's worker…
        queue_mean_s: …so long on average, exponentially.
        compute_noise: standard deviation of the log of true over predicted compute time.
    """

    deadlines_s: tuple[float, ...] = DEADLINES_S
    gap_s: tuple[float, float] = (6.0, 10.0)
    warm_edge_share: float = 0.5
    cloud_shares: tuple[tuple[CloudContext, float], ...] = (
        (CloudContext.ABSENT, 0.6),
        (CloudContext.TOKENS, 0.2),
        (CloudContext.KV, 0.2),
    )
    queue_share: float = 0.3
    queue_mean_s: float = 0.15
    compute_noise: float = 0.05


PAPER_WORKLOAD: Final = Workload(
    deadlines_s=(1.0, 2.0, 5.0),
    warm_edge_share=1.0,
    cloud_shares=((CloudContext.ABSENT, 1.0),),
    queue_share=0.0,
    compute_noise=0.0,
)
"""The source paper's case as far as we know it: the edge has done its prefill, nothing is queued,
the cloud knows nothing. Its deadlines are not known to us."""


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request before any policy has seen it.

    Attributes:
        arrival_s: on the link's clock.
        deadline_s: from arrival to first token.
        facts: what is known of it.
        offers: how it could be served.
        cloud_queue_s: wait for the cloud's worker, known to the policy.
        edge_factor, cloud_factor: true over predicted compute time, unknown to the policy.
    """

    arrival_s: float
    deadline_s: float
    facts: RequestFacts
    offers: tuple[Offer, ...]
    cloud_queue_s: float
    edge_factor: float
    cloud_factor: float

    @property
    def true_offers(self) -> tuple[Offer, ...]:
        """The offers with their true compute times, for the oracle."""
        return tuple(
            replace(
                offer,
                edge_s=offer.edge_s * self.edge_factor,
                encode_s=offer.encode_s * self.edge_factor,
                cloud_s=offer.cloud_s * self.cloud_factor,
            )
            for offer in self.offers
        )


def planned_requests(
    pair: Pair, workload: Workload, count: int, seed: str
) -> tuple[PlannedRequest, ...]:
    """``count`` requests; equal seeds give equal requests."""
    random = Random(seed)  # noqa: S311 - a simulation, not a secret
    clock_s = random.uniform(0.0, 30.0)
    requests: list[PlannedRequest] = []
    for _ in range(count):
        clock_s += random.uniform(*workload.gap_s)
        requests.append(_request(pair, workload, clock_s, random))
    return tuple(requests)


def _request(pair: Pair, workload: Workload, arrival_s: float, random: Random) -> PlannedRequest:
    warm = random.random() < workload.warm_edge_share
    (cloud,) = random.choices(
        [held for held, _ in workload.cloud_shares], [share for _, share in workload.cloud_shares]
    )
    facts = RequestFacts(
        context_tokens=random.choice(pair.context_tokens),
        head_tokens=HEAD_TOKENS,
        tail_tokens=TAIL_TOKENS,
        cloud_context=cloud,
        edge_has_cloud_model=True,
        edge_holds_kv=warm,
        edge_holds_scout_kv=warm,
    )
    waits = random.random() < workload.queue_share
    wait_s = random.expovariate(1.0 / workload.queue_mean_s)
    return PlannedRequest(
        arrival_s=arrival_s,
        deadline_s=random.choice(workload.deadlines_s),
        facts=facts,
        offers=feasible_offers(facts, pair.sources),
        cloud_queue_s=wait_s if waits else 0.0,
        edge_factor=random.lognormvariate(0.0, workload.compute_noise),
        cloud_factor=random.lognormvariate(0.0, workload.compute_noise),
    )
