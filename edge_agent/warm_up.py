"""First measurements: what the edge's own stages cost on this host, before the first request."""

from __future__ import annotations

from typing import Final

from edge_agent.host import EdgeHost
from edge_agent.planning import TRANSFORM_BLOCK_TOKENS
from scout_core.codec.registry import codec_for_mode
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.control.coding import ENCODE_STAGES
from scout_core.control.cost import Stage
from scout_core.daemon.stopwatch import seconds_of
from scout_core.engine import Engine, KvCache
from scout_core.engine.scoring import ScoutContext

LENGTHS: Final = (64, 256, 768)
"""Costs bend with length: what is not measured up to here is guessed badly beyond."""
QUESTION: Final = "What does the passage say?"
WORDS: Final = "the station keeps a record of wind and water "


def warm_up(host: EdgeHost) -> None:
    """Runs the replica's and the scout's stages; runs in the torch thread.

    A first pass at the shortest length pays for what is set up lazily and is not measured.
    """
    for measured, lengths in ((False, LENGTHS[:1]), (True, LENGTHS)):
        for length in lengths:
            if host.replica is not None:
                _replica_stages(host, host.replica, length, measured)
            _score(host, length, measured)


def _replica_stages(host: EdgeHost, replica: Engine, length: int, measured: bool) -> None:
    if length > replica.context_limit_tokens:
        return
    cache = replica.new_cache(length)
    tokens = [replica.prompt.head_tokens[-1]] * length
    prefill_s = seconds_of(lambda: replica.prefill(cache, tokens))
    if measured:
        host.costs.observe(Stage.EDGE_PREFILL, length, prefill_s)
    kv = cache.tensor(0, length)
    for mode, stage in ENCODE_STAGES.items():
        codec = codec_for_mode(mode)
        encode_s = seconds_of(lambda codec=codec: codec.encode(kv))
        if measured:
            host.costs.observe(stage, length, encode_s)
    if host.transform is not None:
        basis = host.transform
        encode_s = seconds_of(lambda: _transform(basis, cache))
        if measured:
            host.costs.observe(Stage.EDGE_ENCODE_TRANSFORM, length, encode_s)


def _transform(basis: TransformBasis, cache: KvCache) -> None:
    """Encodes a cache in the blocks that a payload has."""
    for start in range(0, cache.length, TRANSFORM_BLOCK_TOKENS):
        stop = min(start + TRANSFORM_BLOCK_TOKENS, cache.length)
        codec = TransformCodec.at(basis, basis.int4_level, range(start, stop))
        codec.encode(cache.tensor(start, stop))


def _score(host: EdgeHost, length: int, measured: bool) -> None:
    scout = host.scout
    if scout is None:
        return
    asked, prompt = host.tokenizing.prompt, scout.engine.prompt
    text = WORDS * (length // len(WORDS.split()) + 1)
    text = text[: asked.context_spans(text)[length - 1][1]]
    tokens = asked.context_tokens(text)
    passed = len(prompt.head_tokens) + len(tokens) + len(prompt.tail_tokens(QUESTION))
    if passed > scout.engine.context_limit_tokens:
        return
    score_s = seconds_of(lambda: scout.scorer.score(ScoutContext(text, tokens), QUESTION))
    if measured:
        host.costs.observe(Stage.EDGE_SCORE, passed, score_s)
