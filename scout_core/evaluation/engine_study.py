"""What the models cost on this host, and what quantising their KV changes.

Times are medians of repeated runs of one engine method. Agreement compares the most likely next
token with exact KV and with KV that went through a codec, on continuations of a real text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from scout_core.codec.registry import codec_by_name
from scout_core.engine import Engine, KvCache
from scout_core.engine.scoring import ScoutContext, ScoutScorer
from scout_core.sampling import SamplingOptions

PREFILL_TOKENS: Final = (170, 700)
DECODE_STEPS: Final = 8
REPETITIONS: Final = 3
CONTINUATIONS: Final = 24
CONTINUATION_TOKENS: Final = 6
LOSSY_CODECS: Final = ("int8_groups", "int4_groups")


@dataclass(frozen=True, slots=True)
class TimingRow:
    """Seconds of one stage at one length; ``ratio`` is to the cloud model's prefill of it."""

    model: str
    stage: str
    tokens: int
    seconds: float
    ratio: float


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """Share of positions at which the codec leaves the most likely token unchanged."""

    codec: str
    continuations: int
    positions: int
    top1_agreement: float


def measured_s(work: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    """Median seconds of ``work``, after one run that is not counted."""
    work()
    seconds: list[float] = []
    for _ in range(repetitions):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return median(seconds)


def time_models(
    cloud: Engine, scout: Engine, scorer: ScoutScorer, text: str, question: str
) -> list[TimingRow]:
    """Prefill, first token and decoding of the cloud's model; a scout request beside them."""
    rows: list[TimingRow] = []
    tokens = cloud.prompt.context_tokens(text)
    spans = cloud.prompt.context_spans(text)
    for length in PREFILL_TOKENS:
        if length > len(tokens):
            continue
        part = tokens[:length]
        prefix = (*cloud.prompt.head_tokens, *part)
        prefill_s = measured_s(lambda prefix=prefix: cloud.prefill(cloud.new_cache(), prefix))
        cache = cloud.new_cache()
        cloud.prefill(cache, prefix)
        context = ScoutContext(text[: spans[length - 1][1]], part)
        stages = {
            (cloud.name, "prefill"): prefill_s,
            (cloud.name, "first_token"): measured_s(lambda c=cache: _answer(cloud, c, question, 1)),
            (cloud.name, "decode_step"): _decode_step_s(cloud, cache, question),
            (scout.name, "score"): measured_s(lambda c=context: scorer.score(c, question)),
        }
        rows.extend(
            TimingRow(model, stage, length, seconds, seconds / prefill_s)
            for (model, stage), seconds in stages.items()
        )
    return rows


def _answer(engine: Engine, cache: KvCache, question: str, steps: int) -> None:
    tail = engine.prompt.tail_tokens(question)
    decoder = engine.decoder(cache, tail, SamplingOptions(max_tokens=steps))
    for _ in range(steps):
        if decoder.step() is None:
            return


def _decode_step_s(engine: Engine, cache: KvCache, question: str) -> float:
    """One step after the first: the difference of a longer answer and its first token."""
    tail = engine.prompt.tail_tokens(question)
    decoder = engine.decoder(cache, tail, SamplingOptions(max_tokens=DECODE_STEPS + 1))
    decoder.step()
    seconds: list[float] = []
    for _ in range(DECODE_STEPS):
        started_s = time.perf_counter()
        if decoder.step() is None:
            break
        seconds.append(time.perf_counter() - started_s)
    return median(seconds) if seconds else 0.0


def codec_agreement(engine: Engine, text: str, codecs: Sequence[str]) -> list[AgreementRow]:
    """Top-1 agreement of each codec with exact KV on continuations of ``text``.

    Each continuation keeps a prefix of the text in the cache and feeds the true next tokens; the
    most likely token is compared after each of them.
    """
    tokens = engine.prompt.context_tokens(text)
    first = len(tokens) // 4
    step = max(1, (len(tokens) - first - CONTINUATION_TOKENS) // CONTINUATIONS)
    cuts = [first + index * step for index in range(CONTINUATIONS)]
    agreed = dict.fromkeys(codecs, 0)
    for cut in cuts:
        exact = engine.new_cache()
        engine.prefill(exact, (*engine.prompt.head_tokens, *tokens[:cut]))
        following = tokens[cut : cut + CONTINUATION_TOKENS]
        expected = _choices(engine, exact, following)
        for name in codecs:
            got = _choices(engine, _through(engine, exact, name), following)
            agreed[name] += sum(a == b for a, b in zip(expected, got, strict=True))
    positions = len(cuts) * CONTINUATION_TOKENS
    return [AgreementRow(name, len(cuts), positions, agreed[name] / positions) for name in codecs]


def _through(engine: Engine, cache: KvCache, codec_name: str) -> KvCache:
    """The cache after encoding and decoding, block by block as on the wire."""
    codec = codec_by_name(codec_name)
    copy = engine.new_cache(cache.length)
    for start in range(0, cache.length, engine.block_tokens):
        stop = min(start + engine.block_tokens, cache.length)
        payload = codec.encode(cache.tensor(start, stop))
        engine.inject(copy, start, codec.decode(payload, engine.geometry, stop - start))
    return copy


def _choices(engine: Engine, cache: KvCache, following: Sequence[int]) -> list[int]:
    """The most likely token after each of the true next tokens."""
    chosen: list[int] = []
    for count in range(1, len(following) + 1):
        decoder = engine.decoder(cache, following[:count], SamplingOptions(max_tokens=1))
        decoder.step()
        if decoder.last_logits is None:
            raise AssertionError("a step leaves its logits behind")
        chosen.append(int(decoder.last_logits.argmax()))
    return chosen
