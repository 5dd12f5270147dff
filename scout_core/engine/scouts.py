"""Which scorer a scout engine gets. One place, so that daemons, benches and studies agree."""

from __future__ import annotations

from scout_core.engine.engine import Engine
from scout_core.engine.scoring import AttentionScorer
from scout_core.selection import HeadWeights


def scorer_for(engine: Engine, weights: HeadWeights | None) -> AttentionScorer:
    """A scorer over the engine's question-to-context attention.

    Args:
        weights: calibrated for this engine; None scores by the plain mean, named as uncalibrated.

    Raises:
        ProfileError: the weights are for another shape of model.
    """
    return AttentionScorer(engine, weights)
