"""Positions of one tokenizer in another's: alignment by the characters both stand for.

A scout of another family splits the context differently from the cloud's model. Both tokenizers
say which characters of the text each token stands for, so scores and selections travel through
characters. Owns that arithmetic alone; it knows no tokenizer, no model and no wire.

Spans are half-open ranges of code points, ascending by begin. They may share characters (the
tokens inside one multi-byte character do), leave characters out (a normaliser may drop some) and
be empty (a token without text).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from scout_core.errors import PositionsError

Span = tuple[int, int]
"""First character and the one after the last."""
Selection = npt.NDArray[np.int64]


def align_scores(
    scores: torch.Tensor, source: Sequence[Span], target: Sequence[Span]
) -> torch.Tensor:
    """The scores of ``source`` tokens as scores of ``target`` tokens.

    A target token gets the highest score of the source tokens that share a character with it; one
    without text that of the character it stands before. What no source token covers gets the
    lowest score of all. Equal spans give equal scores, and a higher source score never lowers one.

    Args:
        scores: float ``[len(source)]``.

    Returns:
        float32 ``[len(target)]`` on the CPU.

    Raises:
        PositionsError: not one score per source token, or no source token at all.
    """
    if scores.shape != (len(source),) or not source:
        raise PositionsError(
            f"{tuple(scores.shape)} scores came with {len(source)} tokens; one each is needed."
        )
    given = scores.detach().float().cpu()
    if tuple(source) == tuple(target):
        return given
    values = given.numpy()
    characters = max(end for _, end in (*source, *target))
    by_character = np.full(characters + 1, values.min(), dtype=np.float32)
    begins, lengths = _extents(source)
    owners = np.repeat(np.arange(len(source)), lengths)
    firsts = np.repeat(begins - np.cumsum(lengths) + lengths, lengths)
    np.maximum.at(by_character, firsts + np.arange(len(owners)), values[owners])
    # reduceat takes the maximum from each index to the next; every other one is a token's.
    borders = np.asarray(target, dtype=np.int64).reshape(-1)
    highest = np.maximum.reduceat(by_character, borders)[::2] if len(borders) else borders
    return torch.from_numpy(np.ascontiguousarray(highest, dtype=np.float32))


def kept_spans(selection: Selection, spans: Sequence[Span]) -> tuple[Span, ...]:
    """The characters that the selected tokens stand for: ascending, disjoint, not touching.

    Args:
        selection: ascending token indices.
        spans: of all tokens.

    Raises:
        PositionsError: an index outside the tokens.
    """
    if len(selection) and not 0 <= int(selection[0]) <= int(selection[-1]) < len(spans):
        raise PositionsError(f"The selection reaches beyond the {len(spans)} tokens.")
    merged: list[Span] = []
    for begin, end in sorted(spans[index] for index in selection.tolist()):
        if begin == end:
            continue
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return tuple(merged)


def covering_tokens(kept: Sequence[Span], spans: Sequence[Span]) -> Selection:
    """The tokens that stand for any of the kept characters, ascending.

    Every kept character that some token stands for is covered; a token without text is kept when
    the character after it is.

    Args:
        kept: ascending and disjoint, as ``kept_spans`` gives them.
        spans: of all tokens.
    """
    if not kept or not spans:
        return np.empty(0, dtype=np.int64)
    begins, lengths = _extents(spans)
    ends = begins + np.maximum(lengths, 1)
    kept_begins, kept_ends = np.asarray(kept, dtype=np.int64).T
    # The first kept range that ends behind the token's begin is the only one that can touch it.
    candidate = np.searchsorted(kept_ends, begins, side="right")
    inside = candidate < len(kept)
    touched = np.zeros(len(spans), dtype=np.bool_)
    touched[inside] = kept_begins[candidate[inside]] < ends[inside]
    return np.flatnonzero(touched).astype(np.int64)


def _extents(spans: Sequence[Span]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Begins and lengths, int64 ``[len(spans)]``."""
    table = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1] - table[:, 0]
