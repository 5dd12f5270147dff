"""What virtual time predicts of processes."""

from __future__ import annotations

import pytest

from scout_core.evaluation.allocation_prediction import predict
from scout_core.evaluation.allocation_real import RealCase
from scout_core.evaluation.allocation_recording import Recording
from scout_core.modes import ContextHash, Mode

SIZES = {Mode.KV_BF16: 160_000, Mode.KV_INT8: 105_000, Mode.KV_INT4: 65_000, Mode.SCOUT: 400}
RECORDING = Recording(
    "f", ContextHash(bytes(32)), 400, {mode: (bytes(size),) for mode, size in SIZES.items()}
)


def case(capacity_bytes_per_s: float) -> RealCase:
    return RealCase((2.0, 2.5, 3.0, 3.5), 3, 6.0, capacity_bytes_per_s, 0.1, 0.02)


def test_with_plenty_everything_crosses_exactly_and_with_hardly_anything_as_indices() -> None:
    plenty, hardly = predict(case(1e6), RECORDING), predict(case(1_000.0), RECORDING)
    assert plenty["modes"] == {"kv_bf16": pytest.approx(1.0)}
    assert hardly["modes"] == {"scout": pytest.approx(1.0)}
    assert plenty["compliance"] == hardly["compliance"] == 1.0


def test_in_between_all_of_every_context_crosses_somehow() -> None:
    modes = predict(case(120_000.0), RECORDING)["modes"]
    assert sum(modes.values()) == pytest.approx(1.0)
    assert "scout" not in modes
    assert 0.1 < modes["kv_int4"] < 0.9
