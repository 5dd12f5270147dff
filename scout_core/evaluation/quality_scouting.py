"""The scout's scores of many questions in a batch: what the daemons compute, one at a time.

Owns the batched twin of ``scout_core.engine``'s scorers. A scout that it cannot batch (another
family, another tokenizer) is asked by its own scorer, question by question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scout_core.engine.trained_scout import scout_segments
from scout_core.evaluation.quality_answers import Model, prefill, question_attention
from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.quality_case import Case, Scores, scout_scores
from scout_core.evaluation.quality_models import Pair, Scouting
from scout_core.evaluation.quality_probe import Probe, gathered, scout_features
from scout_core.selection.readout import Readout, lexical_channels
from scout_core.selection.scores import scores_with_words, uniform_mean_scores


def batched_scout_scores(pair: Pair, cases: Sequence[Case], pass_tokens: int) -> list[Scores]:
    """Per case its scores ``[n]``, in the cases' order.

    Args:
        pass_tokens: most padded tokens of one pass.
    """
    scouting = pair.scouting
    if scouting is None:
        return [scout_scores(pair, case) for case in cases]
    found: list[Scores] = [np.empty(0, dtype=np.float32)] * len(cases)
    extra = 2 * max(len(case.tail) for case in cases)
    for index in by_length([len(case.tokens) + extra for case in cases], pass_tokens):
        part = [cases[i] for i in index]
        if scouting.readout is None:
            rows = _by_heads(pair, scouting, part)
        else:
            rows = _by_readout(pair, scouting.model, scouting.readout, part)
        for place, row in zip(index, rows, strict=True):
            found[place] = row
    return found


@torch.no_grad()
def _by_readout(pair: Pair, model: Model, readout: Readout, cases: Sequence[Case]) -> list[Scores]:
    probes: list[Probe] = []
    for case in cases:
        head, tail = scout_segments(pair.scout.prompt, case.example.question)
        begin, end = len(head), len(head) + len(case.tokens)
        ids = [*head, *case.tokens, *tail]
        probes.append(Probe(ids, list(range(len(ids))), (begin, end), (end, len(ids))))
    batch = gathered(probes, model.device)
    valid = batch.context_valid
    seen, hidden = scout_features(model.weights, model.shape, batch)
    words = lexical_channels(lexical_table(cases, model.device), valid[:, None])
    scores = readout.scores(torch.cat((seen, words), dim=1), hidden, valid).cpu().numpy()
    return [scores[row, : len(case.tokens)] for row, case in enumerate(cases)]


def _by_heads(pair: Pair, scouting: Scouting, cases: Sequence[Case]) -> list[Scores]:
    prompt = pair.scout.prompt
    head = prompt.head_tokens
    with torch.no_grad():
        prefix = prefill(scouting.model, [[*head, *case.tokens] for case in cases])
    tails = [prompt.tail_tokens(case.example.question) for case in cases]
    starts = [len(head) + len(case.tokens) for case in cases]
    found: list[Scores] = []
    seen_by_all = question_attention(scouting.model, prefix, tails, starts)
    for case, seen in zip(cases, seen_by_all, strict=True):
        attention = seen[:, :, len(head) :]
        if scouting.heads is None:
            found.append(uniform_mean_scores(attention).numpy())
        else:
            question = case.example.question
            found.append(
                scores_with_words(attention, scouting.heads, case.pieces, question).numpy()
            )
    return found


def lexical_table(cases: Sequence[Case], device: torch.device) -> Tensor:
    """Word-overlap features ``[B, columns, longest context]``, zero behind a context's end."""
    longest = max(len(case.tokens) for case in cases)
    table = np.zeros((len(cases), longest, cases[0].words.shape[1]), dtype=np.float32)
    for row, case in enumerate(cases):
        table[row, : len(case.tokens)] = case.words
    return torch.from_numpy(table).to(device).transpose(1, 2)
