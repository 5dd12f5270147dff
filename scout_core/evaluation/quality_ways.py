"""Ways of answering a question, and what each costs: bytes on the uplink, compute at both ends.

Payload: the bytes the uplink carries when the cloud has seen nothing of the context: token ids the
execution needs and the coded selection; for KV modes the coded cache, as one payload without the
template's head. The question is the same for all and not counted.

Compute is given relative to the cloud model's full pass over head, context and tail of the same
question, in layers times tokens (attention's quadratic part, below 5 % under 2k tokens, left out;
the sentence-embedding model counts by its weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.positions import encode_positions
from scout_core.codec.tokens import token_bytes
from scout_core.codec.transform_basis import TransformBasis
from scout_core.evaluation.codec_contenders import GRADED
from scout_core.evaluation.quality_case import (
    BM25,
    CLOUD,
    LEXICAL,
    MINILM,
    SCOUT,
    SNAP_POOLING,
    UNIFORM_MEAN,
    Case,
)
from scout_core.evaluation.quality_codecs import NO_CODEC, sent_codecs
from scout_core.evaluation.quality_decoder import PROJECTIONS
from scout_core.evaluation.quality_models import Pair
from scout_core.modes import Execution, Mode

FULL = "all"
"""The selector of rows that keep the whole context."""
SPARSE_SELECTORS = frozenset({SCOUT, CLOUD, LEXICAL, BM25, MINILM})
"""Selectors that are also run sparse: the scout, the cloud's own and what a user would try."""
KV_SELECT_RETENTION = 0.5
WHOLE_MODES = (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4)
"""KV modes that send everything."""


@dataclass(frozen=True, slots=True)
class Way:
    """One row's way of answering; ``codec`` is what a KV mode is sent with, else empty."""

    mode: Mode
    execution: Execution
    retention: float
    selector: str
    codec: str = NO_CODEC


WHOLE = Way(Mode.SCOUT, Execution.EVICT, 1.0, FULL)
"""The whole context: what every other way is compared with."""


def kv_ways(basis: TransformBasis | None) -> list[Way]:
    """KV modes that send everything, with every codec that an edge may send them with."""
    return [
        Way(mode, Execution.EVICT, 1.0, FULL, codec)
        for mode in WHOLE_MODES
        for codec in sent_codecs(mode, basis)
    ]


def selected_ways(basis: TransformBasis | None) -> list[Way]:
    """``kv_select``, chosen by the cloud's own heads."""
    return [
        Way(Mode.KV_SELECT, Execution.EVICT, KV_SELECT_RETENTION, CLOUD, codec)
        for codec in sent_codecs(Mode.KV_SELECT, basis)
    ]


def payload_bytes(
    pair: Pair, way: Way, case: Case, kept: NDArray[np.int64], cache_bytes: int
) -> int:
    """Bytes on the uplink; see the module's docstring.

    Args:
        cache_bytes: of the coded cache; 0 where none is sent.
    """
    count = len(case.tokens)
    match way.mode:
        case Mode.KV_BF16 | Mode.KV_INT8 | Mode.KV_INT4:
            return cache_bytes
        case Mode.KV_SELECT:
            return len(encode_positions(kept, count)) + cache_bytes
        case Mode.SCOUT:
            sent = len(kept) if way.execution is Execution.SPARSE else count
            return len(encode_positions(kept, count)) + token_bytes(pair.cloud.vocabulary, sent)


@dataclass(frozen=True, slots=True)
class Compute:
    """Shares of the cloud's full pass: at the edge and in the cloud."""

    edge: float
    cloud: float


def compute(pair: Pair, way: Way, case: Case, kept: int, embedder_weights: int) -> Compute:
    """Compute of one question; see the module's docstring.

    Args:
        kept: context tokens kept.
        embedder_weights: of the sentence-embedding model's layers; 0 without one.
    """
    head = len(pair.cloud.prompt.head_tokens)
    count, tail = len(case.tokens), len(case.tail)
    whole = float(head + count + tail)
    if way.mode is not Mode.SCOUT:
        scoring = tail if way.mode is Mode.KV_SELECT or way.codec == GRADED else 0
        return Compute((head + count + scoring) / whole, tail / whole)
    sparse = way.execution is Execution.SPARSE
    cloud = (head + kept + tail) / whole if sparse else 1.0
    if way.selector == SCOUT:
        # The question stands on both sides of the passage in the scout's own prompt.
        depth = pair.scout.layers / pair.cloud.layers
        return Compute(depth * (count + 2 * tail) / whole, cloud)
    if way.selector in (CLOUD, UNIFORM_MEAN, SNAP_POOLING):
        return Compute(1.0, cloud)
    if way.selector == MINILM:
        layers = pair.model.weights.layer
        weights = sum(part.numel() for name in PROJECTIONS for part in layers[name])
        return Compute(embedder_weights / weights * count / whole, cloud)
    return Compute(0.0, cloud)
