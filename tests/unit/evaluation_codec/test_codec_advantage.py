"""How peers compare with ours at equal divergence, on rows made up for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scout_core.evaluation.codec_advantage import with_advantages
from scout_core.evaluation.codec_study import QualityRow

FINE = QualityRow("t_0", "t", "ours", "tiny", 240, 2, 96, 4.0, 4.0, 0.001, 0.9, None)
COARSE = replace(FINE, codec="t_1", bits_per_element=1.0, kl=0.1)
EXACT = replace(FINE, codec="lossless", family="lossless", bits_per_element=10.0, kl=0.0)
OURS = (FINE, COARSE, EXACT)
PEER = replace(FINE, codec="p", family="p", origin="peer")


def times_ours(peer: QualityRow) -> float | None:
    return with_advantages([*OURS, peer])[-1].times_ours


def test_between_two_rates_of_ours_the_curve_is_followed_in_logarithms() -> None:
    assert times_ours(replace(PEER, kl=0.01, bits_per_element=6.0)) == pytest.approx(3.0)


def test_a_peer_at_the_same_point_is_as_large_as_ours() -> None:
    assert times_ours(replace(PEER, kl=FINE.kl, bits_per_element=4.0)) == pytest.approx(1.0)


def test_an_exact_peer_is_compared_with_the_exact_codec_of_ours() -> None:
    assert times_ours(replace(PEER, kl=0.0, bits_per_element=12.0)) == pytest.approx(1.2)


def test_nothing_is_guessed_beyond_the_coarsest_rate_of_ours() -> None:
    assert times_ours(replace(PEER, kl=9.0, bits_per_element=0.5)) == pytest.approx(0.5)


def test_other_lengths_and_ours_are_not_compared() -> None:
    rows = with_advantages([*OURS, replace(PEER, context_tokens=2048)])
    assert [row.times_ours for row in rows] == [None] * 4
