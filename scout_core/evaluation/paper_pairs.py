"""The model pairs of the policy study: bytes exact, compute measured, quality as named.

Owns the figures and where each comes from. It does not know links or policies.

Compute: prefill of the Qwen2.5-14B shape on one H100 (DESIGN §2), interpolated between the measured
lengths and scaled by parameters for the smaller models. The edge is *assumed* four times slower
than the H100 (``EDGE_SLOWDOWN``, as in the allocation study); the bundled pair's two hosts are two
CPU cores each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scout_core.control.coding import StageCosts
from scout_core.control.cost import PRIORS, CostModel, Stage, StageCost
from scout_core.control.offers import OfferSources, QualityTable
from scout_core.control.sizes import GeometrySizes
from scout_core.geometry import KvGeometry
from scout_core.models.quality import UNCALIBRATED, UNCALIBRATED_NAME, QualityRow
from scout_core.models.quality import QualityTable as RowTable
from scout_core.modes import Execution, Mode

EDGE_SLOWDOWN: Final = 4.0
PREFILL_14B: Final = ((1.0, 0.030), (170.0, 0.044), (4096.0, 0.234), (16_384.0, 1.095))
"""Tokens and seconds on an H100 (DESIGN §2); the first point is one decode step, our assumption."""
SPARSE_14B: Final = ((17.0, 0.030), (410.0, 0.035), (1638.0, 0.096), (16_384.0, 1.095))
"""A tenth of 4,096 and of 16,384 tokens (DESIGN §2); first and last points as above."""
PARAMETERS_OF_14B: Final = {"3b": 0.22, "7b": 0.52, "14b": 1.0}
"""Parameters relative to Qwen2.5-14B (3.1, 7.6 and 14.8 billion)."""
COPY_BYTES_PER_S: Final = 10e9
"""Injection: KV over PCIe and a dequantisation, an assumption."""
ENCODE_BYTES_PER_S: Final = 5e9
"""Encoding of bf16 KV on the edge's accelerator, an assumption."""
QWEN_VOCABULARY: Final = 151_936

PAPER_SCOUT_QUALITY: Final = (0.98, 1.07)
"""The source paper reports 98–107 % over its pairs at half the positions. Which pair has which is
not known to us, so every pair is studied at the low end, and at both ends with ``--paper``."""
SCOUT_BELOW_HALF: Final = {0.25: 65.7 / 67.3, 0.1: 57.9 / 67.3}
"""Fewer positions relative to half of them, evict: the bundled scout's F1 (issue 2 of 5)."""
SPARSE_PART: Final = {0.5: 67.2 / 67.3, 0.25: 61.6 / 67.3, 0.1: 53.9 / 67.3}
"""The same, sparse."""


class MeasuredCosts:
    """Seconds by interpolation between measured points, linear; beyond the last one continued."""

    def __init__(self, points: dict[Stage, tuple[tuple[float, float], ...]]) -> None:
        self._points = points

    def predict(self, stage: Stage, tokens: int) -> float:
        points = self._points[stage]
        index = bisect_right(points, (float(tokens), float("inf")))
        index = max(1, min(index, len(points) - 1))
        (low, low_s), (high, high_s) = points[index - 1], points[index]
        return max(0.0, low_s + (high_s - low_s) * (tokens - low) / (high - low))


@dataclass(frozen=True, slots=True)
class Pair:
    """One scout and cloud pair.

    Attributes:
        name: in reports.
        sources: bytes, costs and quality of its offers.
        kv_bf16_bytes_per_token: of the cloud's model.
        quality_name: where the quality figures come from.
        context_tokens: lengths that are studied.
    """

    name: str
    sources: OfferSources
    kv_bf16_bytes_per_token: int
    quality_name: str
    context_tokens: tuple[int, ...]


BUNDLED: Final = "bundled"
PAPER_CONTEXTS: Final = (170, 1024, 4096, 16_384)
BUNDLED_CONTEXTS: Final = (170, 700, 2048, 7000)
"""The bundled cloud model's window ends at 8,192 tokens."""
_GEOMETRY: Final = {
    "7b": KvGeometry(layers=28, kv_heads=4, head_dim=128),
    "14b": KvGeometry(layers=48, kv_heads=8, head_dim=128),
}
PAPER_PAIRS: Final = (("3b", "7b"), ("3b", "14b"), ("7b", "14b"))


def paper_quality(scout_at_half: float) -> RowTable:
    """The paper's figure for half the positions, and what completes it (see the constants)."""
    full = [
        (Mode.KV_BF16, Execution.EVICT, 1.0, 1.0),
        # int8 is free, int4 costs a hundredth (DESIGN §2, measured on the bundled pair).
        (Mode.KV_INT8, Execution.EVICT, 1.0, 1.0),
        (Mode.KV_INT4, Execution.EVICT, 1.0, 0.99),
        (Mode.SCOUT, Execution.EVICT, 1.0, 1.0),
        (Mode.SCOUT, Execution.SPARSE, 1.0, 1.0),
        (Mode.KV_SELECT, Execution.EVICT, 0.5, scout_at_half),
        (Mode.SCOUT, Execution.EVICT, 0.5, scout_at_half),
    ]
    part = [
        (mode, Execution.EVICT, retention, scout_at_half * share)
        for mode in (Mode.KV_SELECT, Mode.SCOUT)
        for retention, share in SCOUT_BELOW_HALF.items()
    ]
    sparse = [
        (Mode.SCOUT, Execution.SPARSE, retention, scout_at_half * share)
        for retention, share in SPARSE_PART.items()
    ]
    return RowTable(
        f"paper's figures, scout at {scout_at_half:.0%}",
        (
            QualityRow(mode, execution, retention, 1, 1 << 31, quality, 0, 0.0, quality)
            for mode, execution, retention, quality in (*full, *part, *sparse)
        ),
    )


def paper_pair(scout: str, cloud: str, scout_at_half: float = PAPER_SCOUT_QUALITY[0]) -> Pair:
    """One of the paper's Qwen2.5 pairs, e.g. ``paper_pair("3b", "7b")``."""
    geometry = _GEOMETRY[cloud]
    table = paper_quality(scout_at_half)
    bytes_per_token = geometry.bf16_bytes_per_token
    return Pair(
        name=f"qwen2.5-{scout}-{cloud}"
        + ("" if scout_at_half == PAPER_SCOUT_QUALITY[0] else f" @{scout_at_half:.0%}"),
        sources=OfferSources(
            sizes=GeometrySizes(geometry, vocabulary=QWEN_VOCABULARY),
            quality=table,
            edge_costs=_edge_costs(scout, cloud, bytes_per_token),
            cloud_costs=_cloud_costs(cloud, bytes_per_token),
        ),
        kv_bf16_bytes_per_token=bytes_per_token,
        quality_name=table.name,
        context_tokens=PAPER_CONTEXTS,
    )


def _scaled(
    points: tuple[tuple[float, float], ...], factor: float
) -> tuple[tuple[float, float], ...]:
    return tuple((tokens, seconds * factor) for tokens, seconds in points)


def _edge_costs(scout: str, cloud: str, bytes_per_token: int) -> StageCosts:
    encode = ((0.0, 0.0), (1.0, bytes_per_token / ENCODE_BYTES_PER_S))
    return MeasuredCosts(
        {
            Stage.EDGE_PREFILL: _scaled(PREFILL_14B, EDGE_SLOWDOWN * PARAMETERS_OF_14B[cloud]),
            Stage.EDGE_SCORE: _scaled(PREFILL_14B, EDGE_SLOWDOWN * PARAMETERS_OF_14B[scout]),
            Stage.EDGE_ENCODE_BF16: encode,
            Stage.EDGE_ENCODE_INT8: encode,
            Stage.EDGE_ENCODE_INT4: encode,
            Stage.EDGE_ENCODE_SELECT: encode,
        }
    )


def _cloud_costs(cloud: str, bytes_per_token: int) -> StageCosts:
    part = PARAMETERS_OF_14B[cloud]
    return MeasuredCosts(
        {
            Stage.CLOUD_PREFILL: _scaled(PREFILL_14B, part),
            Stage.CLOUD_SPARSE: _scaled(SPARSE_14B, part),
            Stage.CLOUD_FIRST_TOKEN: _scaled(PREFILL_14B, part),
            Stage.CLOUD_INJECT: ((0.0, 0.0), (1.0, bytes_per_token / COPY_BYTES_PER_S)),
        }
    )


SCOUT_LAYERS_PART: Final = 10.0 / 30.0
"""The bundled scout runs ten of the cloud model's thirty layers."""


def bundled_pair(
    quality: QualityTable = UNCALIBRATED,
    quality_name: str = UNCALIBRATED_NAME,
    costs: Iterable[StageCost] = (),
) -> Pair:
    """SmolLM2-135M, two CPU cores at either end.

    Args:
        quality: from a profile; without one, the table that stands in.
        quality_name: what reports call it.
        costs: from a profile; stages it lacks keep the cost model's priors (DESIGN §2, measured).
    """
    geometry = KvGeometry(layers=30, kv_heads=3, head_dim=64)
    score = PRIORS[Stage.EDGE_SCORE]
    scored = StageCost(score.stage, score.base_s, score.per_token_s * SCOUT_LAYERS_PART)
    known = tuple(costs)
    return Pair(
        name=BUNDLED,
        sources=OfferSources(
            sizes=GeometrySizes(geometry, vocabulary=49_152),
            quality=quality,
            edge_costs=CostModel((scored, *known)),
            cloud_costs=CostModel(known),
        ),
        kv_bf16_bytes_per_token=geometry.bf16_bytes_per_token,
        quality_name=quality_name,
        context_tokens=BUNDLED_CONTEXTS,
    )
