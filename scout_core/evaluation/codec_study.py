"""Rate against distortion of KV codecs on real caches.

Owns the measurement behind ``scout bench codec``'s ``quality`` rows: the KL divergence of the
model's next-token distribution with a decoded cache from that with the exact bf16 cache, averaged
over the tokens of a tail that follows the cached prefix, and the share of those tokens whose most
likely successor stays the same. Ratios are of total bf16 bytes to total payload bytes; intervals
are 95 % bootstrap ones over contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from scout_core.evaluation.codec_answers import AnswerRow
from scout_core.evaluation.codec_coded import Coded, Contender, ExactCache
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.metrics import mean_interval

OnProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class QualityRow:
    """One contender over the texts of one length."""

    codec: str
    family: str
    """Its neighbours' at other rates: one curve."""
    origin: str
    """``ours`` or ``peer`` (our re-implementation)."""
    model: str
    context_tokens: int
    """Mean prefix length."""
    contexts: int
    predictions: int
    """Next-token distributions compared."""
    ratio: float
    bits_per_element: float
    kl: float
    """Mean, nats."""
    top1_agreement: float
    f1_ratio: float | None
    """F1 of answers relative to the exact cache, from the ``AnswerRow`` of this codec: measured on
    those questions' contexts, not on these texts. None: no questions were asked of it."""
    times_ours: float | None = None
    """Of peers: bits relative to the best of ours at equal KL divergence."""
    kl_low: float | None = None
    """Ends of the 95 % interval over contexts; None: there is one context."""
    kl_high: float | None = None


@dataclass(slots=True)
class _Tally:
    payload_bytes: float = 0.0
    raw_bytes: int = 0
    divergences: list[float] = field(default_factory=list[float])
    """One a text, the mean over its tail."""
    agreeing: int = 0
    predictions: int = 0

    def add(self, kv: torch.Tensor, coded: Coded, exact: torch.Tensor, seen: torch.Tensor) -> None:
        """Counts one text: log-likelihoods ``[tail, vocabulary]`` with either cache."""
        self.payload_bytes += coded.payload_bytes
        self.raw_bytes += kv.nbytes
        self.divergences.append(float((exact.exp() * (exact - seen)).sum(dim=-1).mean()))
        self.agreeing += int((exact.argmax(dim=-1) == seen.argmax(dim=-1)).sum())
        self.predictions += exact.shape[0]


def quality_rows(
    probe: CacheProbe,
    model_name: str,
    texts: Sequence[ProbeText],
    contenders: Sequence[Contender],
    on_progress: OnProgress,
) -> Iterator[QualityRow]:
    """Measures every contender on texts of about one length."""
    tallies = [_Tally() for _ in contenders]
    is_asked = any(contender.needs_attention for contender in contenders)
    for index, text in enumerate(texts):
        on_progress(f"text {index + 1} of {len(texts)}, {len(text.prefix)} tokens")
        kv, holder = probe.prefilled(text.prefix)
        with torch.no_grad():
            exact = probe.log_likelihoods(holder, kv, text.tail)
            attention = probe.attention(holder, kv, text.prefix) if is_asked else None
            cache = ExactCache(kv, 0, attention)
            for contender, tally in zip(contenders, tallies, strict=True):
                coded = contender.code(cache)
                seen = probe.log_likelihoods(holder, coded.decoded, text.tail)
                tally.add(kv, coded, exact, seen)
    for contender, tally in zip(contenders, tallies, strict=True):
        kl = mean_interval(np.array(tally.divergences))
        is_one = len(texts) == 1
        yield QualityRow(
            codec=contender.name,
            family=contender.family,
            origin=contender.origin,
            model=model_name,
            context_tokens=round(sum(len(text.prefix) for text in texts) / len(texts)),
            contexts=len(texts),
            predictions=tally.predictions,
            ratio=tally.raw_bytes / tally.payload_bytes,
            bits_per_element=16 * tally.payload_bytes / tally.raw_bytes,
            kl=kl.value,
            top1_agreement=tally.agreeing / tally.predictions,
            f1_ratio=None,
            kl_low=None if is_one else kl.low,
            kl_high=None if is_one else kl.high,
        )


def with_answers(
    rows: Sequence[QualityRow], answers: Sequence[AnswerRow]
) -> tuple[QualityRow, ...]:
    """The rows with the F1 ratios of the codecs that were asked questions."""
    ratios = {answer.codec: answer.f1_ratio for answer in answers}
    return tuple(replace(row, f1_ratio=ratios.get(row.codec)) for row in rows)


def windows(
    tokens: Sequence[int],
    prefix_tokens: int,
    tail_tokens: int,
    limit: int,
    head: Sequence[int] = (),
) -> tuple[ProbeText, ...]:
    """Consecutive windows of a text, each a context and its continuation.

    Args:
        head: what goes before every context, as the chat template has it.
    """
    size = prefix_tokens + tail_tokens
    starts = range(0, len(tokens) - size + 1, size)[:limit]
    return tuple(
        ProbeText(
            prefix=(*head, *tokens[start : start + prefix_tokens]),
            tail=tuple(tokens[start + prefix_tokens : start + size]),
        )
        for start in starts
    )
