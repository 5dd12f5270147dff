"""Requests of many agents over one uplink, for the allocation study.

This module owns the made-up part: who asks what when, what it offers, how the shared capacity
moves. It does not know allocators. KV sizes are exact (DESIGN §2); cloud times are the H100
measurements given there; qualities are those measured with the bundled pair (DESIGN §2). Edge times
are an assumption: a board that needs four times as long as the H100 for the cloud's model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

import numpy as np

from scout_core.allocation.offer import Offer
from scout_core.errors import SettingsError
from scout_core.modes import Mode
from scout_core.testbed.generators import RadioClass, radio
from scout_core.testbed.schedule import BITS_PER_BYTE, BITS_PER_MEGABIT, RateSchedule

TOKEN_ID_BYTES: Final = 366 / 170
"""Packed token ids, per token (DESIGN §2: 170 tokens are 366 bytes)."""
INT8_PART: Final = 0.53125
"""Of bf16: 8 bits and a 16-bit scale per group of 32."""
INT4_PART: Final = 0.28125
"""Of bf16: 4 bits and a 16-bit scale per group of 32."""
PREFILL_TOKENS: Final = (170.0, 4_096.0, 16_384.0)
PREFILL_14B_S: Final = (0.044, 0.234, 1.095)
"""Qwen2.5-14B shape on an H100 (DESIGN §2)."""
SPARSE_TENTH_S: Final = (0.030, 0.035, 0.096)
"""The same with a tenth of the tokens; the first is our extrapolation."""
FIRST_STEP_S: Final = 0.03
"""One decode step after the cache is there: our assumption."""
EDGE_SLOWDOWN: Final = 4.0
SCOUT_EDGE_PART: Final = 0.35
"""Edge time of scoring with ten of thirty layers, against the cloud model's prefill there."""

TRACE_S: Final = 120.0

# Relative to full context, bundled pair, n ≈ 360–1,900 questions (DESIGN §2). The scout's are those
# of the first 16 of 30 layers without training; the trained scout of issue 2 is better, and with it
# there is less to allocate.
QUALITY_INT8: Final = 0.999
QUALITY_INT4: Final = 0.99
QUALITY_SELECT: Final = {0.5: 67.3 / 68.2, 0.25: 65.2 / 68.2}
QUALITY_SCOUT: Final = {0.5: 63.3 / 68.2, 0.25: 57.1 / 68.2}


class Pair(Enum):
    """The paper's pairs, scout → cloud (Qwen2.5); the value names it in tables."""

    Q3_7 = "3b-7b"
    Q3_14 = "3b-14b"
    Q7_14 = "7b-14b"

    @property
    def kv_bytes_per_token(self) -> int:
        """Of the cloud's model (DESIGN §2)."""
        return 57_344 if self is Pair.Q3_7 else 196_608

    @property
    def compute_part(self) -> float:
        """Of the 14B model's prefill time: by parameters."""
        return 0.5 if self is Pair.Q3_7 else 1.0


class Arrivals(Enum):
    """When agents ask; the value is the name in tables."""

    SYNCHRONISED = "synchronised"
    """All at once, round after round: a line of cameras on one trigger."""
    POISSON = "poisson"


class CapacityKind(Enum):
    """How the shared uplink moves; the value is the name in tables."""

    CONSTANT = "constant"
    TRACE = "trace"
    """LTE-like fading in steps of a second around the same mean."""


class Mix(Enum):
    """Which requests; the value is the name in tables."""

    HOMOGENEOUS = "homogeneous"
    """170 tokens, 3B → 7B, 1 s: the paper's question."""
    MIXED = "mixed"
    """All pairs, 170 to 4,096 tokens, deadlines of 0.5, 1, 2 and 5 s."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One cell of the study.

    Attributes:
        n_agents: who share the uplink.
        load: the rate that everyone's best offer would need, over the mean capacity.
        mix, arrivals, capacity: see there.
        rounds: requests per agent.
        seed: of everything random.
        tokens_only: adds sending all token ids to the offers: the honest baseline (DESIGN §2).
        capacity_mbps: fixes the capacity instead of the load.
    """

    n_agents: int
    load: float
    mix: Mix
    arrivals: Arrivals
    capacity: CapacityKind
    rounds: int
    seed: int
    tokens_only: bool = False
    capacity_mbps: float | None = None

    def __post_init__(self) -> None:
        if self.n_agents < 1 or self.rounds < 1 or self.load <= 0:
            raise SettingsError("A scenario needs agents ≥ 1, rounds ≥ 1 and a load > 0.")


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request of a workload: times in seconds since its start."""

    agent: int
    arrival_s: float
    deadline_s: float
    offers: tuple[Offer, ...]

    @property
    def deadline_at_s(self) -> float:
        return self.arrival_s + self.deadline_s

    @property
    def best_bytes(self) -> int:
        """Of the most valuable offer, the smallest among equals."""
        return min(
            self.offers, key=lambda offer: (-offer.quality, offer.payload_bytes)
        ).payload_bytes


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in order of arrival, and the uplink they share."""

    requests: tuple[PlannedRequest, ...]
    uplink: RateSchedule
    mean_bytes_per_s: float


def offers_for(pair: Pair, tokens: int, *, tokens_only: bool) -> tuple[Offer, ...]:
    """The five modes, selections at one half and one quarter, for a context of ``tokens``."""
    raw = tokens * pair.kv_bytes_per_token
    prefill_s = pair.compute_part * float(np.interp(tokens, PREFILL_TOKENS, PREFILL_14B_S))
    sparse_s = pair.compute_part * float(np.interp(tokens, PREFILL_TOKENS, SPARSE_TENTH_S))
    edge_s = EDGE_SLOWDOWN * prefill_s
    score_s = SCOUT_EDGE_PART * edge_s

    def kv(mode: Mode, part: float, quality: float, retention: float = 1.0) -> Offer:
        size = math.ceil(raw * part * retention)
        return Offer(mode, retention, size, quality, edge_s, FIRST_STEP_S)

    def scout(retention: float, quality: float) -> Offer:
        # Evict prefills everything; sparse time is known for a tenth and for all of the tokens.
        share = min(max((retention - 0.1) / 0.9, 0.0), 1.0)
        cloud_s = sparse_s + share * (prefill_s - sparse_s) + FIRST_STEP_S
        indices = _index_bytes(tokens, retention)
        size = math.ceil(retention * tokens * TOKEN_ID_BYTES) + indices
        return Offer(Mode.SCOUT, retention, size, quality, score_s, cloud_s)

    offers = [
        kv(Mode.KV_BF16, 1.0, 1.0),
        kv(Mode.KV_INT8, INT8_PART, QUALITY_INT8),
        kv(Mode.KV_INT4, INT4_PART, QUALITY_INT4),
        *(kv(Mode.KV_SELECT, INT8_PART, quality, kept) for kept, quality in QUALITY_SELECT.items()),
        *(scout(kept, quality) for kept, quality in QUALITY_SCOUT.items()),
    ]
    if tokens_only:
        size = math.ceil(tokens * TOKEN_ID_BYTES)
        offers.append(Offer(Mode.SCOUT, 1.0, size, 1.0, 0.0, prefill_s + FIRST_STEP_S))
    return tuple(offers)


def build(scenario: Scenario) -> Workload:
    """The requests and the uplink of a scenario; equal seeds give equal workloads."""
    rng = np.random.default_rng([scenario.seed, scenario.n_agents])
    requests = sorted(_requests(scenario, rng), key=lambda request: request.arrival_s)
    mean = _mean_capacity(scenario, requests)
    mbps = mean * BITS_PER_BYTE / BITS_PER_MEGABIT
    match scenario.capacity:
        case CapacityKind.CONSTANT:
            uplink = RateSchedule.constant(mbps)
        case CapacityKind.TRACE:
            shape = radio(RadioClass.LTE, TRACE_S, scenario.seed)
            uplink = shape.scaled(mbps / shape.mean_mbps(0.0, TRACE_S))
        case _:
            assert_never(scenario.capacity)
    return Workload(tuple(requests), uplink, mean)


def _requests(scenario: Scenario, rng: np.random.Generator) -> list[PlannedRequest]:
    requests: list[PlannedRequest] = []
    round_s = max(_deadlines(scenario.mix))
    for agent in range(scenario.n_agents):
        pair, tokens, deadline_s = _profile(scenario.mix, rng)
        offers = offers_for(pair, tokens, tokens_only=scenario.tokens_only)
        match scenario.arrivals:
            case Arrivals.SYNCHRONISED:
                times = [number * round_s for number in range(scenario.rounds)]
            case Arrivals.POISSON:
                times = np.cumsum(rng.exponential(deadline_s, scenario.rounds)).tolist()
            case _:
                assert_never(scenario.arrivals)
        requests.extend(PlannedRequest(agent, at_s, deadline_s, offers) for at_s in times)
    return requests


def _deadlines(mix: Mix) -> tuple[float, ...]:
    return (1.0,) if mix is Mix.HOMOGENEOUS else (0.5, 1.0, 2.0, 5.0)


def _profile(mix: Mix, rng: np.random.Generator) -> tuple[Pair, int, float]:
    match mix:
        case Mix.HOMOGENEOUS:
            return Pair.Q3_7, 170, 1.0
        case Mix.MIXED:
            pair = list(Pair)[int(rng.integers(len(Pair)))]
            deadline_s = float(rng.choice(_deadlines(mix)))
            # Longer contexts cannot be prefilled by the edge within half a second.
            longest = 1_024 if deadline_s <= 1.0 else 4_096
            tokens = round(math.exp(rng.uniform(math.log(170), math.log(longest))))
            return pair, tokens, deadline_s
        case _:
            assert_never(mix)


def _mean_capacity(scenario: Scenario, requests: list[PlannedRequest]) -> float:
    """Bytes a second: what everyone's best offer needs within its deadline, over the load."""
    if scenario.capacity_mbps is not None:
        return scenario.capacity_mbps * BITS_PER_MEGABIT / BITS_PER_BYTE
    one_each = {request.agent: request for request in requests}.values()
    return sum(request.best_bytes / request.deadline_s for request in one_each) / scenario.load


def _index_bytes(tokens: int, retention: float) -> int:
    """log2 of the number of ways to choose the kept positions, in bytes, and two of header."""
    kept = round(tokens * retention)
    bits = (
        math.lgamma(tokens + 1) - math.lgamma(kept + 1) - math.lgamma(tokens - kept + 1)
    ) / math.log(2)
    return math.ceil(bits / 8) + 2
