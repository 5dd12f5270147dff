"""First measurements: what each stage costs on this host, before the first request.

Without them the first predictions would come from a prior for another machine. The work also
touches every code path of torch once, so that the first request does not pay for it.
"""

from __future__ import annotations

from typing import Final

from scout_core.codec.base import KvCodec
from scout_core.codec.registry import codec_by_name
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.control.cost import CostModel, Stage
from scout_core.daemon.stopwatch import seconds_of
from scout_core.engine import Engine, KvCache
from scout_core.sampling import SamplingOptions

LENGTHS: Final = (64, 256, 768)
"""Costs bend with length: what is not measured up to here is guessed badly beyond."""
QUESTION: Final = "What does the passage say?"
DECODE_STEPS: Final = 3


def warm_up(engine: Engine, basis: TransformBasis | None, costs: CostModel) -> None:
    """Runs every stage and notes the times; runs in the torch thread.

    ``basis`` is the transform that KV may come through, if this server holds one. A first pass at
    the shortest length pays for what is set up lazily and is not measured.
    """
    _run_stages(engine, basis, LENGTHS[0], CostModel())
    for length in LENGTHS:
        if 2 * length + DECODE_STEPS + 64 <= engine.context_limit_tokens:
            _run_stages(engine, basis, length, costs)


def _run_stages(
    engine: Engine, basis: TransformBasis | None, length: int, costs: CostModel
) -> None:
    tokens = [engine.prompt.head_tokens[-1]] * length
    cache = engine.new_cache(length)
    costs.observe(Stage.CLOUD_PREFILL, length, seconds_of(lambda: engine.prefill(cache, tokens)))
    groups = codec_by_name("int8_groups")
    costs.observe(Stage.CLOUD_INJECT, length, _inject_s(engine, cache, groups))
    if basis is not None:
        codec = TransformCodec.at(basis, basis.int4_level, range(length))
        costs.observe(Stage.CLOUD_INJECT_TRANSFORM, length, _inject_s(engine, cache, codec))
    positions = list(range(0, 2 * length, 2))
    costs.observe(
        Stage.CLOUD_SPARSE,
        length,
        seconds_of(lambda: engine.sparse_prefill(tokens, positions, 2 * length)),
    )
    tail = engine.prompt.tail_tokens(QUESTION)
    decoder = engine.decoder(cache, tail, SamplingOptions(max_tokens=DECODE_STEPS))
    costs.observe(Stage.CLOUD_FIRST_TOKEN, len(tail), seconds_of(decoder.step))
    for _ in range(DECODE_STEPS - 1):
        costs.observe(Stage.CLOUD_DECODE_STEP, 1, seconds_of(decoder.step))


def _inject_s(engine: Engine, cache: KvCache, codec: KvCodec) -> float:
    """Seconds of decoding and injecting a copy of a cache."""
    length = cache.length
    payload = codec.encode(cache.tensor(0, length))
    copy = engine.new_cache(length)
    return seconds_of(
        lambda: engine.inject(copy, 0, codec.decode(payload, engine.geometry, length))
    )
