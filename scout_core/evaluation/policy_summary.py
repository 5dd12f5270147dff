"""What the outcomes of the policy study amount to: rows, ratios to the oracle, intervals.

Owns the arithmetic. Intervals come from a bootstrap over *links*, not requests: requests on one
recording share its fortunes. It does not know how outcomes came about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.evaluation.policy_simulation import Outcome

ORACLE: Final = "oracle"
OURS: Final = "ours"
RESAMPLES: Final = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinkOutcomes:
    """All outcomes of one policy on one link."""

    policy: str
    pair: str
    tech_class: str
    link: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the study; ``low`` and ``high`` are 95 % intervals."""

    policy: str
    pair: str
    tech_class: str
    deadline_s: float
    context_tokens: int
    requests: int
    compliance: float
    compliance_low: float
    compliance_high: float
    quality: float
    utility: float
    utility_low: float
    utility_high: float
    ttft_p50_s: float
    ttft_p95_s: float
    bytes_mean: float


def rows(results: Iterable[LinkOutcomes], seed: int = 0) -> list[Row]:
    """One row per policy, pair, class, deadline and context length."""
    cells: dict[tuple[str, str, str, float, int], list[list[Outcome]]] = defaultdict(list)
    for result in results:
        by_cell: dict[tuple[float, int], list[Outcome]] = defaultdict(list)
        for outcome in result.outcomes:
            by_cell[outcome.deadline_s, outcome.context_tokens].append(outcome)
        for (deadline_s, tokens), outcomes in by_cell.items():
            key = (result.policy, result.pair, result.tech_class, deadline_s, tokens)
            cells[key].append(outcomes)
    random = np.random.default_rng(seed)
    return [_row(key, by_link, random) for key, by_link in sorted(cells.items())]


def _row(
    key: tuple[str, str, str, float, int],
    by_link: list[list[Outcome]],
    random: np.random.Generator,
) -> Row:
    outcomes = [outcome for link in by_link for outcome in link]
    ttft = np.array([outcome.ttft_s for outcome in outcomes])
    counts = np.array([len(link) for link in by_link], dtype=np.float64)
    met = np.array([sum(outcome.met for outcome in link) for link in by_link], dtype=np.float64)
    utility = np.array([sum(outcome.utility for outcome in link) for link in by_link])
    compliance_low, compliance_high = ratio_interval(met, counts, random)
    utility_low, utility_high = ratio_interval(utility, counts, random)
    policy, pair, tech_class, deadline_s, tokens = key
    return Row(
        policy=policy,
        pair=pair,
        tech_class=tech_class,
        deadline_s=deadline_s,
        context_tokens=tokens,
        requests=len(outcomes),
        compliance=float(met.sum() / counts.sum()),
        compliance_low=compliance_low,
        compliance_high=compliance_high,
        quality=float(np.mean([outcome.quality for outcome in outcomes])),
        utility=float(utility.sum() / counts.sum()),
        utility_low=utility_low,
        utility_high=utility_high,
        ttft_p50_s=float(np.quantile(ttft, 0.5)),
        ttft_p95_s=float(np.quantile(ttft, 0.95)),
        bytes_mean=float(np.mean([outcome.payload_bytes for outcome in outcomes])),
    )


def ratio_interval(
    numerators: Floats, denominators: Floats, random: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile bootstrap of sum(numerators) / sum(denominators) over links."""
    picks = random.integers(0, len(numerators), (RESAMPLES, len(numerators)))
    below = denominators[picks].sum(axis=1)
    drawn = numerators[picks].sum(axis=1) / np.where(below == 0.0, np.inf, below)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One policy's sums over the oracle's, over the same requests.

    ``pair`` and ``tech_class`` are ``all`` for all together; intervals are 95 %, paired by link.
    """

    policy: str
    pair: str
    tech_class: str
    requests: int
    compliance: float
    utility: float
    compliance_ratio: float
    compliance_ratio_low: float
    compliance_ratio_high: float
    utility_ratio: float
    utility_ratio_low: float
    utility_ratio_high: float


ALL: Final = "all"


def ratios(results: Sequence[LinkOutcomes], seed: int = 0) -> list[Ratio]:
    """Every policy against the oracle, per pair and class, and overall."""
    random = np.random.default_rng(seed)
    oracle = {(r.pair, r.link): r for r in results if r.policy == ORACLE}
    groups: dict[tuple[str, str, str], list[LinkOutcomes]] = defaultdict(list)
    for result in results:
        for pair in (result.pair, ALL):
            groups[result.policy, pair, ALL].append(result)
            groups[result.policy, pair, result.tech_class].append(result)
    found: list[Ratio] = []
    for (policy, pair, tech_class), members in sorted(groups.items()):
        met = np.array([_total(member, "met") for member in members])
        utility = np.array([_total(member, "utility") for member in members])
        best = [oracle[member.pair, member.link] for member in members]
        best_met = np.array([_total(member, "met") for member in best])
        best_utility = np.array([_total(member, "utility") for member in best])
        requests = sum(len(member.outcomes) for member in members)
        met_low, met_high = ratio_interval(met, best_met, random)
        utility_low, utility_high = ratio_interval(utility, best_utility, random)
        found.append(
            Ratio(
                policy=policy,
                pair=pair,
                tech_class=tech_class,
                requests=requests,
                compliance=float(met.sum() / requests),
                utility=float(utility.sum() / requests),
                compliance_ratio=_ratio(met, best_met),
                compliance_ratio_low=met_low,
                compliance_ratio_high=met_high,
                utility_ratio=_ratio(utility, best_utility),
                utility_ratio_low=utility_low,
                utility_ratio_high=utility_high,
            )
        )
    return found


def _total(result: LinkOutcomes, what: str) -> float:
    return float(sum(getattr(outcome, what) for outcome in result.outcomes))


def _ratio(numerators: Floats, denominators: Floats) -> float:
    below = float(denominators.sum())
    return float(numerators.sum()) / below if below else 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """Ours against the best fixed mode in one (pair, class, deadline) cell.

    ``margin_low`` and ``margin_high``: 95 % interval of ours minus best fixed, paired by link.
    """

    pair: str
    tech_class: str
    deadline_s: float
    requests: int
    ours: float
    best_fixed: float
    best_fixed_policy: str
    tokens: float
    oracle: float
    margin_low: float
    margin_high: float

    @property
    def reached(self) -> bool:
        return self.ours >= self.best_fixed - 1e-9


def cells(results: Iterable[LinkOutcomes], seed: int = 0) -> list[Cell]:
    """Every (pair, class, deadline) cell."""
    random = np.random.default_rng(seed)
    sums: dict[tuple[str, str, float], dict[str, dict[str, tuple[float, int]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for result in results:
        by_deadline: dict[float, list[float]] = defaultdict(list)
        for outcome in result.outcomes:
            by_deadline[outcome.deadline_s].append(outcome.utility)
        for deadline_s, values in by_deadline.items():
            cell = sums[result.pair, result.tech_class, deadline_s]
            cell[result.policy][result.link] = (sum(values), len(values))
    return [_cell(key, policies, random) for key, policies in sorted(sums.items())]


def _cell(
    key: tuple[str, str, float],
    policies: Mapping[str, Mapping[str, tuple[float, int]]],
    random: np.random.Generator,
) -> Cell:
    links = sorted(policies[OURS])
    counts = np.array([policies[OURS][link][1] for link in links], dtype=np.float64)
    totals = {
        policy: np.array([by_link[link][0] for link in links])
        for policy, by_link in policies.items()
    }
    means = {policy: float(total.sum() / counts.sum()) for policy, total in totals.items()}
    fixed = max((policy for policy in means if policy.startswith("fixed:")), key=means.__getitem__)
    low, high = ratio_interval(totals[OURS] - totals[fixed], counts, random)
    pair, tech_class, deadline_s = key
    return Cell(
        pair=pair,
        tech_class=tech_class,
        deadline_s=deadline_s,
        requests=int(counts.sum()),
        ours=means[OURS],
        best_fixed=means[fixed],
        best_fixed_policy=fixed,
        tokens=means["tokens"],
        oracle=means[ORACLE],
        margin_low=low,
        margin_high=high,
    )
