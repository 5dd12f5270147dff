"""The runtime's collection of attention against a plain softmax over the passage."""

from __future__ import annotations

import torch

from scout_core.engine.trained_scout import QuestionAttention
from scout_core.selection.passage import pieces_of


def test_rows_in_blocks_give_what_one_block_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 5, 8, generator=generator)
    key = torch.randn(2, 20, 8, generator=generator)
    whole, parts = QuestionAttention(3, 12), QuestionAttention(3, 12)
    whole.observe(0, query, key, 0.35, None)
    parts.observe(0, query[:, :2], key, 0.35, None)
    parts.observe(0, query[:, 2:], key, 0.35, None)
    assert torch.allclose(whole.channels(5), parts.channels(5), atol=1e-5)


def test_channels_are_the_log_of_mean_and_last_attention() -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(4, 3, 8, generator=generator)
    key = torch.randn(2, 10, 8, generator=generator)
    collected = QuestionAttention(1, 6)
    collected.observe(0, query, key, 0.35, None)
    wide = key[:, 1:7].repeat_interleave(2, dim=0)
    shares = (query @ wide.transpose(1, 2) * 0.35).softmax(-1)
    wanted = torch.cat((shares.mean(1).log(), shares[:, -1].log()))
    assert torch.allclose(collected.channels(3), wanted, atol=1e-5)


def test_rows_before_the_tail_are_passed_over() -> None:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(4, 6, 8, generator=generator)
    key = torch.randn(2, 12, 8, generator=generator)
    all_rows, tail_alone = QuestionAttention(2, 7), QuestionAttention(2, 7)
    all_rows.observe(0, query[:, :2], key[:, :8], 0.35, None)
    all_rows.observe(0, query[:, 2:], key, 0.35, None)
    tail_alone.observe(0, query[:, 3:], key, 0.35, None)
    assert torch.equal(all_rows.channels(3), tail_alone.channels(3))


def test_pieces_cover_the_text_once() -> None:
    text = "Ogród Saski"
    spans = ((0, 3), (3, 4), (3, 4), (4, 5), (6, 11))
    assert pieces_of(text, spans) == ["Ogr", "ó", "", "d", " Saski"]
