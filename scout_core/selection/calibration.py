"""Fits head weights: which (layer, head) attentions point at the answer.

Regularised logistic regression of "this position is inside the answer's span" on standardised
log-attention, in float64 by L-BFGS, so that the same data give the same weights. The penalty is
chosen on questions held out by a seeded split; the result reports how well it did on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from scout_core.errors import EmptyInputError
from scout_core.selection.head_weights import DEFAULT_POOL_WIDTH, HeadWeights
from scout_core.selection.scores import calibrated_scores, head_features
from scout_core.selection.selectors import select_top

PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT_FRACTION: Final = 0.2
STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class CalibrationCase:
    """One question about one context.

    Args:
        attention: ``[layers, heads, positions]`` over the context.
        answer: bool ``[positions]``, true on the answer's tokens.
        lexical: ``lexical_rows`` of the case, to be weighed beside the heads; in all cases or none.
    """

    attention: torch.Tensor
    answer: torch.Tensor
    lexical: torch.Tensor | None = None

    def scores(self, weights: HeadWeights) -> torch.Tensor:
        """Float32 ``[positions]``."""
        heads = calibrated_scores(self.attention, weights)
        if weights.lexical is None or self.lexical is None:
            return heads
        return heads + weights.lexical @ self.lexical


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted weights, the penalty that won, and the answer tokens kept on held-out questions."""

    weights: HeadWeights
    penalty: float
    held_out_recall: float
    held_out_cases: int


def fit_head_weights(
    cases: Sequence[CalibrationCase],
    *,
    seed: int = 0,
    retention: float = 0.25,
    pool_width: int = DEFAULT_POOL_WIDTH,
) -> Calibration:
    """Fits weights, choosing the penalty by recall of answer tokens at ``retention``.

    Args:
        cases: at least ten, for a split that means something; all of one model.

    Raises:
        EmptyInputError: fewer than ten cases with an answer in the context.
    """
    usable = [case for case in cases if bool(case.answer.any())]
    if len(usable) < 10:
        raise EmptyInputError(f"Calibration needs 10 answerable questions, got {len(usable)}.")
    order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed)).tolist()
    held = max(2, round(len(usable) * HELD_OUT_FRACTION))
    held_out = [usable[index] for index in order[:held]]
    training = [usable[index] for index in order[held:]]
    layers, heads = usable[0].attention.shape[:2]
    rows = torch.cat([_rows(case) for case in training])
    marks = torch.cat([case.answer for case in training]).to(torch.float64)
    best: Calibration | None = None
    for penalty in PENALTIES:
        flat, bias = _fit(rows, marks, penalty)
        fitted = HeadWeights(
            flat[: layers * heads].view(layers, heads).float(),
            bias,
            pool_width,
            lexical=flat[layers * heads :].float() if usable[0].lexical is not None else None,
        )
        recall = answer_recall(held_out, fitted, retention)
        if best is None or recall > best.held_out_recall:
            best = Calibration(fitted, penalty, recall, len(held_out))
    if best is None:
        raise AssertionError("there is at least one penalty")
    return best


def answer_recall(
    cases: Sequence[CalibrationCase], weights: HeadWeights, retention: float
) -> float:
    """Mean fraction of answer tokens among the positions selected."""
    recalls: list[float] = []
    for case in cases:
        kept = torch.from_numpy(select_top(case.scores(weights), retention))
        recalls.append(float(case.answer[kept].sum()) / float(case.answer.sum()))
    return sum(recalls) / len(recalls)


def _rows(case: CalibrationCase) -> torch.Tensor:
    """Float64 ``[positions, layers * heads]``, lexical columns behind them if there are any."""
    rows = head_features(case.attention).flatten(0, 1)
    if case.lexical is not None:
        rows = torch.cat((rows, case.lexical))
    return rows.T.to(torch.float64)


def _fit(rows: torch.Tensor, marks: torch.Tensor, penalty: float) -> tuple[torch.Tensor, float]:
    """Weights ``[features]`` and bias of the penalised logistic regression.

    Answer tokens are a few in a hundred; both classes get the same total weight.
    """
    flat = torch.zeros(rows.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    share = float(marks.mean())
    importance = torch.where(marks > 0, 0.5 / share, 0.5 / (1.0 - share))
    optimizer = torch.optim.LBFGS([flat, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fit = binary_cross_entropy_with_logits(rows @ flat + bias, marks, weight=importance)
        total = fit + penalty * flat.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return flat.detach(), float(bias.detach())
