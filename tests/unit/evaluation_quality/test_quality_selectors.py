"""Baselines and word-overlap features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from scout_core.evaluation.baselines_attention import mean_scores, snap_scores
from scout_core.evaluation.baselines_positions import (
    oracle_scores,
    random_scores,
    recent_scores,
    sink_window_scores,
)
from scout_core.evaluation.baselines_retrieval import bm25_scores
from scout_core.selection.lexical import FEATURES, features
from scout_core.selection.passage import sentence_starts, token_sentences
from scout_core.selection.readout import ReadoutShape, fresh_readout, lexical_channels, load_readout

PASSAGE = "The mill burned down in 1820. A new bridge was built by Anna Holm. Nobody slept."
PIECES = [word if place == 0 else f" {word}" for place, word in enumerate(PASSAGE.split(" "))]
QUESTION = "Who built the new bridge?"


def _best(scores: np.ndarray, count: int) -> set[int]:
    return set(np.argsort(-scores, kind="stable")[:count].tolist())


def test_sinks_and_window_keep_both_ends() -> None:
    assert _best(sink_window_scores(100), 10) == {0, 1, 2, 3, *range(94, 100)}
    assert _best(recent_scores(100), 3) == {97, 98, 99}


def test_the_oracle_keeps_the_nearest_occurrence() -> None:
    assert _best(oracle_scores(50, [(10, 12), (30, 31)]), 5) >= {10, 11, 30}
    assert _best(oracle_scores(50, []), 2) == {48, 49}


def test_random_scores_repeat_with_their_seed() -> None:
    assert np.array_equal(random_scores(9, 4), random_scores(9, 4))
    assert not np.array_equal(random_scores(9, 4), random_scores(9, 5))


def test_attention_baselines_follow_the_attention() -> None:
    attention = torch.full((2, 3, 40), 0.01)
    attention[:, :, 17] = 0.5
    assert int(mean_scores(attention).argmax()) == 17
    assert _best(snap_scores(attention).numpy(), 7) == set(range(14, 21))


def test_bm25_takes_the_sentence_that_shares_words() -> None:
    sentences = token_sentences(PIECES)
    assert sentences[int(bm25_scores(features(PIECES, QUESTION)).argmax())] == 1


def test_features_have_their_columns_and_see_the_match() -> None:
    table = features(PIECES, QUESTION)
    assert table.shape == (len(PIECES), len(FEATURES))
    column = table[:, FEATURES.index("match")]
    assert {PIECES[i].strip() for i in np.flatnonzero(column)} == {"bridge", "built", "new"}


def test_features_of_a_passage_without_words_are_silent() -> None:
    assert not features(["...", "?!"], QUESTION).any()


def test_sentences_end_at_full_stops_before_capitals() -> None:
    starts = sentence_starts("It was 3.5 m. Then Dr smith left.\nEnd")
    assert starts == [0, 14, 34]


def test_a_readout_survives_its_file_and_ignores_padding(tmp_path: Path) -> None:
    shape = ReadoutShape(channels=6, hidden_size=5, projected=3, width=4)
    readout = fresh_readout(shape, seed=1, device=torch.device("cpu"))
    save_file({k: v.detach() for k, v in readout.tensors.items()}, str(tmp_path / "r.safetensors"))
    again = load_readout(tmp_path / "r.safetensors", torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 6, 12, generator=generator)
    hidden = torch.randn(1, 12, 5, generator=generator)
    valid = torch.ones(1, 12, dtype=torch.bool)
    wide = torch.nn.functional.pad(x, (0, 5))
    more = torch.nn.functional.pad(hidden, (0, 0, 0, 5), value=7.0)
    mask = torch.nn.functional.pad(valid, (0, 5))
    with torch.no_grad():
        own = again.scores(x, hidden, valid)
        padded = again.scores(wide, more, mask)
    assert torch.allclose(own, padded[:, :12], atol=1e-6)
    assert bool((padded[:, 12:] == -1e4).all())
    assert (again.channels, again.hidden_size) == (6, 5)


def test_lexical_channels_are_raw_and_standardised() -> None:
    table = torch.from_numpy(features(PIECES, QUESTION)).T[None]
    valid = torch.ones((1, 1, len(PIECES)), dtype=torch.bool)
    channels = lexical_channels(table, valid)
    assert channels.shape == (1, 2 * len(FEATURES), len(PIECES))
    assert channels[0, len(FEATURES) :].mean(-1).abs().max() < 1e-3
