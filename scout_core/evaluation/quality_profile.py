"""``scout calibrate``: head weights, quality table and cost lines of a pair, as a profile.

Owns the split of the data (heads are fitted on one half of the articles, quality is measured on
the other), the fit, and the assembly of the profile; what is measured is ``quality_promises``. The
daemons read what this writes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scout_core.codec.bases import coding_identity
from scout_core.control.cost import Stage
from scout_core.engine.scoring import ScoutContext
from scout_core.engine.scouts import scorer_between
from scout_core.errors import EmptyInputError
from scout_core.evaluation.dataset import Example, data_hash, hold_out
from scout_core.evaluation.quality_heads import SPLIT_SEED, fitted_heads
from scout_core.evaluation.quality_models import Pair
from scout_core.evaluation.quality_promises import LEAST_PER_BAND, Run, promises
from scout_core.evaluation.quality_ways import KV_SELECT_RETENTION
from scout_core.models.profile import (
    CostRecord,
    HeadWeightsRecord,
    ModelRecord,
    Profile,
)
from scout_core.selection import UNCALIBRATED, HeadWeights

COST_LENGTHS = (64, 192)


@dataclass(frozen=True, slots=True)
class Request:
    """What to calibrate: profile name, retentions, most questions measured, data's description."""

    name: str
    retentions: tuple[float, ...]
    questions: int
    data_description: str
    heads: HeadWeights | None = None
    """Fitted elsewhere, e.g. by the training scripts; then every row is measured."""
    costs: bool = True
    """Time this host: of use where the daemons run on it."""


def _line(stage: Stage, work: Callable[[int], object]) -> CostRecord:
    """Cost line through two lengths, the better of two runs each."""
    seconds: list[float] = []
    for tokens in COST_LENGTHS:
        runs: list[float] = []
        for _ in range(2):
            began = time.perf_counter()
            work(tokens)
            runs.append(time.perf_counter() - began)
        seconds.append(min(runs))
    low, high = COST_LENGTHS
    slope = max((seconds[1] - seconds[0]) / (high - low), 0.0)
    base = max(seconds[0] - slope * low, 0.0)
    return CostRecord(stage=stage, base_s=base, per_token_s=slope, samples=4)


def _costs(pair: Pair, example: Example) -> tuple[CostRecord, ...]:
    text = (example.context + " ") * (1 + COST_LENGTHS[-1] * 8 // len(example.context))
    tokens = pair.cloud.prompt.context_tokens(text)
    spans = pair.cloud.prompt.context_spans(text)

    def prefill(count: int) -> None:
        pair.cloud.prefill(pair.cloud.new_cache(count), tokens[:count])

    def score(count: int) -> None:
        part = text[: spans[count - 1][1]]
        context = ScoutContext(part, pair.cloud.prompt.context_tokens(part))
        pair.scorer.score(context, example.question)

    return (_line(Stage.EDGE_SCORE, score), _line(Stage.CLOUD_PREFILL, prefill))


def _drawn(
    answerable: Sequence[Example], most: int, *, fits: bool
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Up to ``most`` questions each to fit on and to measure, of different articles.

    Where nothing is fitted, all may be measured.
    """
    generator = random.Random(SPLIT_SEED)  # noqa: S311 - a reproducible draw, not a secret
    fit_on: tuple[Example, ...] = ()
    measured = tuple(answerable)
    if fits:
        fit_on, measured = hold_out(answerable, at_least=len(answerable) // 2, seed=SPLIT_SEED)
        fit_on = tuple(generator.sample(fit_on, min(len(fit_on), most)))
    return fit_on, tuple(generator.sample(measured, min(len(measured), most)))


def _with_heads(pair: Pair, heads: HeadWeights, scout_heads: HeadWeights | None) -> Pair:
    """The pair as the profile will describe it; a trained scout (None) keeps its own scorer."""
    weighed = replace(pair, heads=heads)
    if scout_heads is None:
        return weighed
    return replace(
        weighed,
        scorer=scorer_between(pair.scout, pair.cloud, scout_heads),
        scouting=pair.scouting and replace(pair.scouting, heads=scout_heads),
    )


def calibrate(pair: Pair, examples: Sequence[Example], request: Request, run: Run) -> Profile:
    """Fits, measures, and assembles the profile.

    Raises:
        EmptyInputError: too few answerable questions to fit and to measure.
        RequestError: stopped before all was measured; or the records are of something else.
    """
    answerable = [example for example in examples if example.answerable]
    if len(answerable) < 2 * LEAST_PER_BAND:
        raise EmptyInputError(
            f"Calibration needs {2 * LEAST_PER_BAND} answerable questions, got {len(answerable)}."
        )
    heads, scout_heads = request.heads, None
    scout_is_trained = not pair.scorer.selector_name.startswith(UNCALIBRATED)
    fits = heads is None or not scout_is_trained
    fit_on, measured = _drawn(answerable, request.questions, fits=fits)
    if heads is None:
        run.report(f"fitting the cloud's heads on {len(fit_on)} questions")
        heads = fitted_heads(pair.cloud, pair.model, fit_on)
    if not scout_is_trained:
        run.report(f"fitting the scout's heads on {len(fit_on)} questions")
        batched = pair.scouting and pair.scouting.model
        scout_heads = fitted_heads(pair.scout, batched, fit_on, words=True)
    retentions = tuple(sorted({*request.retentions, KV_SELECT_RETENTION}))
    fitted = _with_heads(pair, heads, scout_heads)
    scout_record = scout_heads and HeadWeightsRecord.model_validate(scout_heads.to_dict())
    return Profile(
        schema_version=1,
        name=request.name,
        cloud=ModelRecord(name=pair.cloud.name, fingerprint=pair.cloud.fingerprint),
        scout=ModelRecord(name=pair.scout.name, fingerprint=pair.scout.fingerprint),
        cloud_head_weights=HeadWeightsRecord.model_validate(heads.to_dict()),
        scout_head_weights=scout_record,
        quality=promises(fitted, scout_record, measured, retentions, run),
        costs=_costs(pair, answerable[0]) if request.costs else (),
        kv_coding=coding_identity(fitted.basis),
        data_sha256=data_hash([*fit_on, *measured]),
        data_description=request.data_description,
    )
