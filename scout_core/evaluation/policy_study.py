"""The policy study: every contender over every link, for every pair.

Owns who takes part and in what order. It does not know how outcomes are summarised or drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from scout_core.control.policies import (
    ChanceConstraintPolicy,
    FixedPolicy,
    RobustMpcPolicy,
    ThroughputPolicy,
    TokensPolicy,
)
from scout_core.evaluation.paper_pairs import Pair
from scout_core.evaluation.policy_links import Link
from scout_core.evaluation.policy_simulation import Contender, LinkRun
from scout_core.evaluation.policy_summary import ORACLE, OURS, LinkOutcomes
from scout_core.evaluation.policy_workload import Workload, planned_requests
from scout_core.modes import Mode

REQUESTS_PER_LINK: Final = 40
SWEEP_TARGETS: Final = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)

SWITCHED_MODES: Final = (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_SELECT)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What is run.

    Attributes:
        links: every link.
        pairs: every pair.
        contenders: every policy; the oracle among them.
        workload: what the requests are like.
        requests_per_link: of each pair.
        seed: of the requests.
    """

    links: Sequence[Link]
    pairs: Sequence[Pair]
    contenders: Sequence[Contender]
    workload: Workload
    requests_per_link: int = REQUESTS_PER_LINK
    seed: int = 0


def contenders() -> tuple[Contender, ...]:
    """The policies of the report, by the names that scripts rely on."""
    return (
        *(Contender(f"fixed:{mode.value}", FixedPolicy(mode)) for mode in Mode),
        Contender("tokens", TokensPolicy()),
        Contender("throughput", ThroughputPolicy(), learns=True),
        Contender("robust_mpc", RobustMpcPolicy(), learns=True),
        ours(),
        Contender(ORACLE, None),
    )


def ours() -> Contender:
    """The chance constraint with mid-transfer switches, at the default target."""
    return Contender(OURS, ChanceConstraintPolicy(), learns=True, switches=True)


def variants() -> tuple[Contender, ...]:
    """What explains the report: a known link, switches on and off, other targets."""
    known = Contender("ours, link known", ChanceConstraintPolicy(), knows_link=True)
    return (
        known,
        replace(known, name="ours, link known, target 0", target=0.0),
        *(
            Contender(f"starts as {mode.value}", FixedPolicy(mode), learns=True, switches=True)
            for mode in SWITCHED_MODES
        ),
        Contender("ours, no switches", ChanceConstraintPolicy(), learns=True),
        *(
            Contender(
                f"ours, target {target:g}",
                ChanceConstraintPolicy(),
                learns=True,
                switches=True,
                target=target,
            )
            for target in SWEEP_TARGETS
        ),
    )


def run_study(plan: StudyPlan, progress: Callable[[str], None]) -> Iterator[LinkOutcomes]:
    """Runs everything; ``progress`` is told what comes next."""
    for pair in plan.pairs:
        requests = {
            link.name: planned_requests(
                pair, plan.workload, plan.requests_per_link, f"{plan.seed}/{pair.name}/{link.name}"
            )
            for link in plan.links
        }
        for contender in plan.contenders:
            progress(f"{pair.name}: {contender.name}")
            for link in plan.links:
                run = LinkRun(link, pair, contender)
                yield LinkOutcomes(
                    contender.name,
                    pair.name,
                    link.tech_class,
                    link.name,
                    tuple(run.outcomes(requests[link.name])),
                )
