"""Every way in which one request could be served, with its bytes, times and expected quality.

This module owns the list of feasible offers. It does not choose among them (``policies``), and it
knows neither the link nor the deadline. Quality comes from a measured profile through
``QualityTable``; a mode without a figure there is not offered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from scout_core.control.coding import (
    CodingSources,
    KvCoding,
    StageCosts,
    TransformSizes,
    coded_kv,
)
from scout_core.control.cost import Stage
from scout_core.control.sizes import PayloadSizes
from scout_core.errors import ModeUnavailableError
from scout_core.modes import Execution, Mode

RETENTION_LADDER: Final = (1.0, 0.5, 0.25, 0.1)
"""Fractions of the context's positions that are tried, most first."""
FULL_RETENTION: Final = 1.0


class QualityTable(Protocol):
    """Expected answer quality relative to the full context, as calibration measured it."""

    def quality(
        self, mode: Mode, execution: Execution, retention: float, context_tokens: int
    ) -> float:
        """Quality for one way of serving; 1.0 is the cloud model with the whole context."""
        ...


class CloudContext(Enum):
    """What the cloud's store holds of the context (proto ContextState)."""

    ABSENT = "absent"
    TOKENS = "tokens"
    KV = "kv"


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What is known about a request when a mode is to be chosen.

    Attributes:
        context_tokens: n ≥ 1, by the cloud's tokenizer.
        head_tokens: template tokens before the context; always kept, never coded.
        tail_tokens: question and generation prompt.
        cloud_context: what the cloud holds already.
        edge_has_cloud_model: both ends hold the same model (equal fingerprints); else scout only.
        edge_has_scout: the edge can score positions; else only retention 1.0.
        edge_holds_kv: the prefix's KV of the cloud's model is cached on the edge.
        edge_holds_scout_kv: the scout's KV of the context is cached on the edge.
        forced_mode, forced_retention, forced_execution: what the caller insists on.
    """

    context_tokens: int
    head_tokens: int
    tail_tokens: int
    cloud_context: CloudContext = CloudContext.ABSENT
    edge_has_cloud_model: bool = False
    edge_has_scout: bool = True
    edge_holds_kv: bool = False
    edge_holds_scout_kv: bool = False
    forced_mode: Mode | None = None
    forced_retention: float | None = None
    forced_execution: Execution | None = None

    @property
    def prefix_tokens(self) -> int:
        return self.head_tokens + self.context_tokens


@dataclass(frozen=True, slots=True)
class Offer:
    """One way of serving one request.

    Attributes:
        mode, retention, execution: what is done; execution matters in scout mode only.
        payload_bytes: planned bytes of the payload stream.
        quality: expected quality relative to the full context.
        edge_s: edge seconds before the first payload byte can leave.
        encode_s: edge seconds of encoding, overlapped with the transfer.
        cloud_s: cloud seconds from the last payload byte to the first token, queue excluded.
        coding: how KV is coded within the mode.
    """

    mode: Mode
    retention: float
    execution: Execution
    payload_bytes: int
    quality: float
    edge_s: float
    cloud_s: float
    encode_s: float = 0.0
    coding: KvCoding = KvCoding.PLAIN


def kept_tokens(context_tokens: int, retention: float) -> int:
    """Context positions that ``retention`` keeps: at least one, rounded up."""
    return max(1, min(context_tokens, math.ceil(retention * context_tokens - 1e-9)))


@dataclass(frozen=True, slots=True)
class OfferSources:
    """Where an offer's figures come from.

    Attributes:
        sizes: planned bytes.
        quality: the profile's table.
        edge_costs: what the edge host measured.
        cloud_costs: what the cloud reported.
        ladder: retentions to try.
        transform: bytes of the transform that both ends hold; None: they hold none in common.
        link_bytes_per_s: the rate that the link is expected to have: what decides between codecs.
    """

    sizes: PayloadSizes
    quality: QualityTable
    edge_costs: StageCosts
    cloud_costs: StageCosts
    ladder: tuple[float, ...] = RETENTION_LADDER
    transform: TransformSizes | None = None
    link_bytes_per_s: float = math.inf

    def coding(self, scoring_s: float | None) -> CodingSources:
        """What the choice of a codec needs of them, and of when the positions have scores."""
        return CodingSources(
            self.sizes,
            self.edge_costs,
            self.cloud_costs,
            self.transform,
            self.link_bytes_per_s,
            scoring_s,
        )


def feasible_offers(facts: RequestFacts, sources: OfferSources) -> tuple[Offer, ...]:
    """All offers that this request allows, in the order of ``Mode``.

    Raises:
        ModeUnavailableError: what the caller forced cannot be done here; says why.
    """
    _check_forced(facts)
    return tuple(
        offer
        for mode in _modes(facts)
        for retention in _retentions(facts, mode, sources.ladder)
        for offer in _offers_of(facts, sources, mode, retention)
    )


def _check_forced(facts: RequestFacts) -> None:
    mode, retention = facts.forced_mode, facts.forced_retention
    if mode is not None and mode.carries_kv and not facts.edge_has_cloud_model:
        raise ModeUnavailableError(
            f"Mode {mode.value} sends the cloud model's KV cache, but this edge does not hold the "
            "cloud's model; use mode auto or scout, or install the same model on the edge.",
            mode=mode.value,
        )
    if retention is None or retention >= FULL_RETENTION:
        return
    if mode is not None and not mode.selects:
        raise ModeUnavailableError(
            f"Mode {mode.value} sends every position, so retention must be 1.0, not {retention:g}; "
            "use kv_select or scout to keep a part of the context.",
            mode=mode.value,
        )
    if not facts.edge_has_scout and not facts.edge_has_cloud_model:
        raise ModeUnavailableError(
            f"Retention {retention:g} needs scores, but this edge holds neither a scout model nor "
            "the cloud's model; use retention 1.0.",
            retention=retention,
        )
    if mode is Mode.SCOUT and not facts.edge_has_scout:
        raise ModeUnavailableError(
            f"Mode scout at retention {retention:g} needs a scout model on this edge; configure "
            "one or use retention 1.0.",
            mode=mode.value,
        )


def _modes(facts: RequestFacts) -> Iterator[Mode]:
    for mode in Mode:
        if facts.forced_mode is not None and mode is not facts.forced_mode:
            continue
        if mode.carries_kv and not facts.edge_has_cloud_model:
            continue
        yield mode


def _retentions(facts: RequestFacts, mode: Mode, ladder: tuple[float, ...]) -> tuple[float, ...]:
    forced = facts.forced_retention
    if not mode.selects:
        return (FULL_RETENTION,) if forced in (None, FULL_RETENTION) else ()
    if forced is not None:
        if mode is Mode.SCOUT and forced < FULL_RETENTION and not facts.edge_has_scout:
            return ()
        return (forced,)
    if mode is Mode.KV_SELECT:
        # At 1.0 it is kv_int8 with an index block on top.
        return tuple(retention for retention in ladder if retention < FULL_RETENTION)
    return ladder if facts.edge_has_scout else (FULL_RETENTION,)


def _offers_of(
    facts: RequestFacts, sources: OfferSources, mode: Mode, retention: float
) -> Iterator[Offer]:
    match mode:
        case Mode.KV_BF16 | Mode.KV_INT8 | Mode.KV_INT4 | Mode.KV_SELECT:
            yield _kv_offer(facts, sources, mode, retention)
        case Mode.SCOUT:
            for execution in _executions(facts, retention):
                yield _scout_offer(facts, sources, retention, execution)


def _executions(facts: RequestFacts, retention: float) -> tuple[Execution, ...]:
    if facts.forced_execution is not None:
        return (facts.forced_execution,)
    if retention >= FULL_RETENTION:
        # Sparse would be the same work, without the full cache left behind.
        return (Execution.EVICT,)
    return tuple(Execution)


def _kv_offer(facts: RequestFacts, sources: OfferSources, mode: Mode, retention: float) -> Offer:
    edge, cloud, sizes = sources.edge_costs, sources.cloud_costs, sources.sizes
    edge_s, payload_bytes, positions = 0.0, 0, facts.prefix_tokens
    # The question's rows over the cached prefix give the scores.
    scored_s = edge.predict(Stage.EDGE_PREFILL, facts.tail_tokens)
    scoring_s = scored_s if facts.edge_holds_kv else None
    if not facts.edge_holds_kv:
        edge_s += edge.predict(Stage.EDGE_PREFILL, facts.prefix_tokens)
    if mode is Mode.KV_SELECT and retention < FULL_RETENTION:
        kept = kept_tokens(facts.context_tokens, retention)
        positions = facts.head_tokens + kept
        payload_bytes += sizes.index_bytes(facts.context_tokens, kept)
        edge_s, scoring_s = edge_s + scored_s, 0.0
    coded = coded_kv(mode, positions, sources.coding(scoring_s))
    return Offer(
        mode=mode,
        retention=retention,
        execution=Execution.EVICT,
        payload_bytes=payload_bytes + coded.payload_bytes,
        quality=sources.quality.quality(mode, Execution.EVICT, retention, facts.context_tokens),
        edge_s=edge_s + coded.scoring_s,
        cloud_s=coded.inject_s + cloud.predict(Stage.CLOUD_FIRST_TOKEN, facts.tail_tokens),
        encode_s=coded.encode_s,
        coding=coded.coding,
    )


def _scout_offer(
    facts: RequestFacts, sources: OfferSources, retention: float, execution: Execution
) -> Offer:
    edge, cloud, sizes = sources.edge_costs, sources.cloud_costs, sources.sizes
    kept = kept_tokens(facts.context_tokens, retention)
    payload_bytes, edge_s = 0, 0.0
    if retention < FULL_RETENTION:
        payload_bytes += sizes.index_bytes(facts.context_tokens, kept)
        scored = facts.tail_tokens + (0 if facts.edge_holds_scout_kv else facts.prefix_tokens)
        edge_s += edge.predict(Stage.EDGE_SCORE, scored)
    cloud_s = cloud.predict(Stage.CLOUD_FIRST_TOKEN, facts.tail_tokens)
    match execution:
        case Execution.EVICT:
            sent = facts.context_tokens
            if facts.cloud_context is not CloudContext.KV:
                cloud_s += cloud.predict(Stage.CLOUD_PREFILL, facts.prefix_tokens)
        case Execution.SPARSE:
            sent = kept
            cloud_s += cloud.predict(Stage.CLOUD_SPARSE, facts.head_tokens + kept)
    if facts.cloud_context is CloudContext.ABSENT:
        payload_bytes += sizes.token_bytes(sent)
    return Offer(
        mode=Mode.SCOUT,
        retention=retention,
        execution=execution,
        payload_bytes=payload_bytes,
        quality=sources.quality.quality(Mode.SCOUT, execution, retention, facts.context_tokens),
        edge_s=edge_s,
        cloud_s=cloud_s,
    )
