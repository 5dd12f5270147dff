"""Builders shared by the control room's tests."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from scout_core.control.cost import CostModel
from scout_core.control.forecast import RateBelief, TransferForecast
from scout_core.control.offers import OfferSources
from scout_core.control.sizes import GeometrySizes
from scout_core.geometry import KvGeometry
from scout_core.modes import Execution, Mode

SMOL = KvGeometry(layers=30, kv_heads=3, head_dim=64)
QUALITY = {
    Mode.KV_BF16: 1.0,
    Mode.KV_INT8: 1.0,
    Mode.KV_INT4: 0.95,
    Mode.KV_SELECT: 0.9,
    Mode.SCOUT: 0.85,
}


class FlatQuality:
    """One figure per mode, less below full retention."""

    def quality(
        self, mode: Mode, execution: Execution, retention: float, context_tokens: int
    ) -> float:
        del execution, context_tokens
        return QUALITY[mode] * (1.0 if retention >= 1.0 else 0.9)


@pytest.fixture
def sources() -> OfferSources:
    return OfferSources(
        sizes=GeometrySizes(SMOL, vocabulary=49_152),
        quality=FlatQuality(),
        edge_costs=CostModel(),
        cloud_costs=CostModel(),
    )


@pytest.fixture
def steady() -> Callable[[float], TransferForecast]:
    """A forecast that is almost sure of a rate in bytes per second."""

    def build(bytes_per_s: float) -> TransferForecast:
        belief = RateBelief(math.log(bytes_per_s), 1e-3, (1.0,))
        return TransferForecast(
            beliefs=(belief,),
            log_lags=(0.0,),
            age_s=0.0,
            round_trip_s=0.0,
            known=True,
            recent_bytes_per_s=(bytes_per_s,) * 5,
        )

    return build
