"""Which context positions matter for a question: scores from attention, and selectors over scores.

Tensors in, positions out. It does not know models, prompts or the wire.
"""

from scout_core.selection.head_weights import HeadWeights, PoolKind
from scout_core.selection.scores import (
    UNCALIBRATED,
    calibrated_scores,
    head_features,
    pooled,
    uniform_mean_scores,
)
from scout_core.selection.selectors import kept_count, select_runs, select_top

__all__ = [
    "UNCALIBRATED",
    "HeadWeights",
    "PoolKind",
    "calibrated_scores",
    "head_features",
    "kept_count",
    "pooled",
    "select_runs",
    "select_top",
    "uniform_mean_scores",
]
