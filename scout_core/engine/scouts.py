"""Which scorer a scout engine gets. One place, so that daemons, benches and studies agree."""

from __future__ import annotations

import torch

from scout_core.engine.aligned_scout import AlignedScorer
from scout_core.engine.engine import Engine
from scout_core.engine.loading import ModelTokenizer
from scout_core.engine.scoring import AttentionScorer, ScoutScorer
from scout_core.engine.trained_scout import TrainedScorer
from scout_core.models.bundled import readout_file
from scout_core.models.registry import BUNDLED_PREFIX, bundled_model
from scout_core.selection import HeadWeights
from scout_core.selection.readout import load_readout


def scorer_for(engine: Engine, weights: HeadWeights | None) -> AttentionScorer | TrainedScorer:
    """The readout that was trained with a bundled scout; for others the engine's attention.

    Args:
        weights: calibrated for this engine; None scores by the plain mean, named as uncalibrated.

    Raises:
        ProfileError: the weights or the readout are for another shape of model.
        UnknownModelError: the installation lacks the readout.
    """
    if engine.name.startswith(BUNDLED_PREFIX):
        path = readout_file(bundled_model(engine.name.removeprefix(BUNDLED_PREFIX)))
        if path is not None:
            return TrainedScorer(engine, load_readout(path, torch.device("cpu")))
    return AttentionScorer(engine, weights)


def scorer_between(
    scout: Engine, asked: Engine | ModelTokenizer, weights: HeadWeights | None
) -> ScoutScorer:
    """``scorer_for`` the scout, scoring the tokens of ``asked``, whatever its tokenizer is.

    Raises:
        ProfileError, UnknownModelError: as ``scorer_for``.
    """
    scorer = scorer_for(scout, weights)
    if scout.tokenizer_fingerprint == asked.tokenizer_fingerprint:
        return scorer
    return AlignedScorer(scorer, scout.prompt, asked.prompt)
