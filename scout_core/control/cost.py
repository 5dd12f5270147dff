"""What each stage of a request costs in seconds, learnt from what the hosts measured.

A stage is a line ``base + per_token · tokens``, bent a little by octave of the token count. Both
coefficients come from a recursive fit with forgetting: five exponentially weighted sums, so that a
host that slows down (heat, load) is followed within about twenty requests, and no history is kept.
The first measurement sets the level; the prior only lends its shape until several token counts have
been seen.

This module owns the fit. It does not know models, hosts or the wire; ``StageCost`` tuples are how
the lines (not their bends) leave and enter it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


class Stage(Enum):
    """Where time goes. The value is the name on the wire (proto StageCost.stage)."""

    EDGE_PREFILL = "edge_prefill"
    """The cloud's model on the edge; tokens = positions it had to process."""
    EDGE_SCORE = "edge_score"
    """Scout model and scoring; tokens = positions the scout had to process."""
    EDGE_ENCODE_BF16 = "edge_encode_kv_bf16"
    """KV encoding; tokens = positions encoded."""
    EDGE_ENCODE_INT8 = "edge_encode_kv_int8"
    EDGE_ENCODE_INT4 = "edge_encode_kv_int4"
    EDGE_ENCODE_SELECT = "edge_encode_kv_select"
    EDGE_ENCODE_TRANSFORM = "edge_encode_transform"
    """The same through the calibrated transform, whatever the mode."""
    EDGE_REFINE = "edge_refine"
    """What makes KV that was sent finer; tokens = positions refined."""
    CLOUD_PREFILL = "cloud_prefill"
    """Full prefill; tokens = positions of the prefix."""
    CLOUD_SPARSE = "cloud_sparse"
    """Prefill of the selected positions only; tokens = positions kept."""
    CLOUD_INJECT = "cloud_inject"
    """Decoding a KV payload and building the cache; tokens = positions received."""
    CLOUD_INJECT_TRANSFORM = "cloud_inject_transform"
    """The same for a payload that went through the calibrated transform."""
    CLOUD_REFINE = "cloud_refine"
    """The same for what makes received KV finer; tokens = positions refined."""
    CLOUD_FIRST_TOKEN = "cloud_first_token"  # noqa: S105 - a stage's name, not a secret
    """Prefill of the tail on top of a cache, to the first token; tokens = tail positions."""
    CLOUD_DECODE_STEP = "cloud_decode_step"
    """One decoded token; tokens = 1."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """One fitted line, as it travels and is stored.

    Attributes:
        stage: which stage.
        base_s: seconds per call, ≥ 0.
        per_token_s: seconds per token, ≥ 0.
        samples: measurements behind it; 0 for a prior.
    """

    stage: Stage
    base_s: float
    per_token_s: float
    samples: int = 0


PRIORS: Final[Mapping[Stage, StageCost]] = {
    cost.stage: cost
    for cost in (
        # SmolLM2-135M in float32 on two CPU cores (DESIGN §2): 170 / 700 tokens in 0.3 / 1.2 s,
        # 60 ms a decoded token. Pessimistic for larger machines, replaced after a few requests.
        StageCost(Stage.EDGE_PREFILL, 0.02, 1.7e-3),
        StageCost(Stage.EDGE_SCORE, 0.02, 1.7e-3),
        StageCost(Stage.CLOUD_PREFILL, 0.02, 1.7e-3),
        StageCost(Stage.CLOUD_SPARSE, 0.02, 1.7e-3),
        StageCost(Stage.CLOUD_FIRST_TOKEN, 0.06, 1.7e-3),
        StageCost(Stage.CLOUD_DECODE_STEP, 0.06, 0.0),
        # About 200 MB/s of bf16 KV at 23 kB a token, a memory copy with arithmetic on one core.
        StageCost(Stage.EDGE_ENCODE_BF16, 0.001, 3e-5),
        StageCost(Stage.EDGE_ENCODE_INT8, 0.001, 1.2e-4),
        StageCost(Stage.EDGE_ENCODE_INT4, 0.001, 1.2e-4),
        StageCost(Stage.EDGE_ENCODE_SELECT, 0.001, 1.2e-4),
        StageCost(Stage.CLOUD_INJECT, 0.002, 1.2e-4),
        # About 100 MB/s: a host that is not known is not trusted with matrix products.
        StageCost(Stage.EDGE_ENCODE_TRANSFORM, 0.001, 2.4e-4),
        StageCost(Stage.CLOUD_INJECT_TRANSFORM, 0.002, 2.4e-4),
        # The residual to bf16 codes 200 MB/s on one core (``scout bench codec``).
        StageCost(Stage.EDGE_REFINE, 0.001, 1.2e-4),
        StageCost(Stage.CLOUD_REFINE, 0.002, 1.2e-4),
    )
}
"""Costs before anything was measured."""

FORGETTING: Final = 0.93
"""Weight of the past per observation: about the last 14 count."""
OUTLIER_FACTOR: Final = 4.0
"""A measurement beyond this multiple of the prediction is taken as this multiple: one page fault or
a paused process must not double every later prediction."""
OUTLIER_AFTER_SAMPLES: Final = 5
SHAPE_SHARE: Final = 0.01
"""Weight, relative to all evidence, of each of two points on the prior line scaled to the measured
level: decides the split into base and slope while only one token count has been seen."""
SHAPE_TOKENS: Final = (16.0, 1024.0)
SHORTEST_S: Final = 1e-4
BEND_SHARE: Final = 0.2
BEND_LIMIT: Final = 1.6
"""Attention makes long prefills cost more than a line says. Each octave of token counts therefore
has a factor on the line, moved by this share per measurement and kept within this limit."""


@dataclass(slots=True)
class _Line:
    """Exponentially weighted sums of a straight-line fit."""

    prior: StageCost
    weight: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    tokens_squared: float = 0.0
    tokens_seconds: float = 0.0
    samples: int = 0
    relative_error: float = 0.0

    def forget(self) -> None:
        self.weight *= FORGETTING
        self.tokens *= FORGETTING
        self.seconds *= FORGETTING
        self.tokens_squared *= FORGETTING
        self.tokens_seconds *= FORGETTING

    def add(self, tokens: float, seconds: float, weight: float) -> None:
        self.weight += weight
        self.tokens += weight * tokens
        self.seconds += weight * seconds
        self.tokens_squared += weight * tokens * tokens
        self.tokens_seconds += weight * tokens * seconds

    def with_prior_shape(self) -> _Line:
        """This evidence and two weak points on the prior line scaled to its level."""
        prior = self.prior
        expected = prior.base_s * self.weight + prior.per_token_s * self.tokens
        shaped = replace(self)
        if expected > 0.0:
            ratio = self.seconds / expected
            for tokens in SHAPE_TOKENS:
                seconds = ratio * (prior.base_s + prior.per_token_s * tokens)
                shaped.add(tokens, seconds, SHAPE_SHARE * self.weight)
        return shaped

    def coefficients(self) -> tuple[float, float]:
        """(base, per token), both ≥ 0: the constrained least-squares solution."""
        determinant = self.weight * self.tokens_squared - self.tokens * self.tokens
        if determinant > 1e-9 * self.weight * self.tokens_squared:
            slope = (self.weight * self.tokens_seconds - self.tokens * self.seconds) / determinant
            base = (self.seconds - slope * self.tokens) / self.weight
            if slope >= 0.0 and base >= 0.0:
                return base, slope
            if base < 0.0:
                return 0.0, self.tokens_seconds / self.tokens_squared
        return self.seconds / self.weight, 0.0


class CostModel:
    """Predicts seconds per stage; one for the edge host and one for each cloud it talks to.

    Args:
        priors: lines to start from; a stage that is absent takes the built-in prior.
    """

    def __init__(self, priors: Iterable[StageCost] = ()) -> None:
        self._priors: dict[Stage, StageCost] = dict(PRIORS)
        self._lines: dict[Stage, _Line] = {}
        self._fitted: dict[Stage, tuple[float, float]] = {}
        self._bends: dict[tuple[Stage, int], float] = {}
        self.load(priors)

    def load(self, costs: Iterable[StageCost]) -> None:
        """Replaces the prior of each stage, e.g. by the figures another host reported."""
        for cost in costs:
            self._priors[cost.stage] = cost
            self._lines.pop(cost.stage, None)
            self._fitted[cost.stage] = (cost.base_s, cost.per_token_s)
            self._bends = {key: bend for key, bend in self._bends.items() if key[0] != cost.stage}

    def observe(self, stage: Stage, tokens: int, seconds: float) -> None:
        """Takes in one measurement; a negative or non-finite one is ignored as a clock fault."""
        if tokens < 0 or seconds < 0.0 or not math.isfinite(seconds):
            return
        predicted = self.predict(stage, tokens)
        line = self._lines.get(stage)
        if line is None:
            line = self._lines[stage] = _Line(self._priors[stage])
        if line.samples >= OUTLIER_AFTER_SAMPLES:
            seconds = min(seconds, OUTLIER_FACTOR * max(predicted, 1e-3))
        if predicted > 0.0:
            error = abs(seconds / predicted - 1.0)
            share = max(1.0 / (line.samples + 1), 1.0 - FORGETTING)
            line.relative_error += share * (min(error, 1.0) - line.relative_error)
        line.forget()
        # Scatter grows with duration; so weighed, long runs do not drown the base of short ones.
        line.add(float(tokens), seconds, 1.0 / max(predicted, SHORTEST_S))
        line.samples += 1
        self._fitted[stage] = line.with_prior_shape().coefficients()
        self._bend(stage, tokens, seconds)

    def _bend(self, stage: Stage, tokens: int, seconds: float) -> None:
        base_s, per_token_s = self._fitted[stage]
        ratio = seconds / max(base_s + per_token_s * tokens, SHORTEST_S)
        ratio = max(1.0 / BEND_LIMIT, min(ratio, BEND_LIMIT))
        key = (stage, tokens.bit_length())
        bend = self._bends.get(key, 1.0)
        self._bends[key] = bend + BEND_SHARE * (ratio - bend)

    def predict(self, stage: Stage, tokens: int) -> float:
        """Seconds the stage is expected to take for ``tokens``; at least 0."""
        base_s, per_token_s = self._coefficients(stage)
        line_s = base_s + per_token_s * tokens
        return line_s * self._bends.get((stage, tokens.bit_length()), 1.0)

    def relative_error(self, stage: Stage) -> float:
        """Mean relative error of recent predictions of this stage, 0 when nothing was measured."""
        line = self._lines.get(stage)
        return 0.0 if line is None else line.relative_error

    def costs(self) -> tuple[StageCost, ...]:
        """All lines, fitted or prior, for storage and for the wire."""
        return tuple(
            StageCost(stage, *self._coefficients(stage), self._samples(stage)) for stage in Stage
        )

    def _coefficients(self, stage: Stage) -> tuple[float, float]:
        prior = self._priors[stage]
        return self._fitted.get(stage, (prior.base_s, prior.per_token_s))

    def _samples(self, stage: Stage) -> int:
        line = self._lines.get(stage)
        return self._priors[stage].samples + (0 if line is None else line.samples)
