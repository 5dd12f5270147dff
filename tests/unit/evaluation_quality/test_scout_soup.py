"""Mixtures of scouts: the file with words beside scores like the two files apart."""

from __future__ import annotations

import pytest
import torch

from scout_core.evaluation.quality_decoder import PROJECTIONS
from scout_core.evaluation.training.adapter import LowRank, with_averages
from scout_core.evaluation.training.scout import Scout
from scout_core.evaluation.training.scout_soup import averaged_scout, with_words
from scout_core.selection.readout import Readout, ReadoutShape, fresh_readout

DEVICE = torch.device("cpu")
HIDDEN, WORDS, HEADS, LENGTH = 12, 6, 8, 20


def readout(channels: int, projected: int, seed: int) -> Readout:
    """One that is not silent."""
    shape = ReadoutShape(channels, HIDDEN, projected, width=5)
    made = fresh_readout(shape, seed=seed, device=DEVICE)
    generator = torch.Generator().manual_seed(seed + 100)
    return Readout({k: torch.randn(v.shape, generator=generator) for k, v in made.tensors.items()})


def scout(seed: int) -> Scout:
    generator = torch.Generator().manual_seed(seed)
    down = {name: torch.randn(2, 3, 7, generator=generator) for name in PROJECTIONS}
    up = {name: torch.randn(2, 5, 3, generator=generator) for name in PROJECTIONS}
    return Scout(LowRank(down, up, 3, 6.0), readout(HEADS + WORDS, 4, seed), 2)


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_words_beside_a_readout_add_their_share_of_their_scores(share: float) -> None:
    full, words = readout(HEADS + WORDS, 4, 1), readout(WORDS, 0, 2)
    features = torch.randn(2, HEADS + WORDS, LENGTH)
    hidden = torch.randn(2, LENGTH, HIDDEN)
    valid = torch.ones(2, LENGTH, dtype=torch.bool)
    valid[1, 15:] = False
    mixed = with_words(full, words, share)
    apart = full.scores(features, hidden, valid)
    apart = apart + share * words.scores(features[:, HEADS:], hidden, valid)
    together = mixed.scores(features, hidden, valid)
    assert torch.allclose(together[valid], apart[valid], atol=1e-4)
    assert mixed.channels == full.channels


def test_the_average_of_one_scout_with_itself_is_that_scout() -> None:
    one = scout(3)
    assert one.adapter is not None
    same = averaged_scout([one, one])
    assert same.adapter is not None
    for name in PROJECTIONS:
        update = one.adapter.up[name] @ one.adapter.down[name]
        assert torch.allclose(same.adapter.up[name] @ same.adapter.down[name], update, atol=1e-4)
    assert torch.equal(same.readout.tensors["readout.mix"], one.readout.tensors["readout.mix"])


def test_every_mixture_of_three_is_tried_once() -> None:
    scouts = {name: scout(seed) for seed, name in enumerate(("a", "b", "c"))}
    found = with_averages(scouts, averaged_scout)
    assert sorted(found) == ["a", "a+b", "a+b+c", "a+c", "b", "b+c", "c"]
