"""The models of the edge and what surrounds them: torch thread, stores, costs, estimator.

One per process; servicer, planner and payload share it. It knows nothing about streams.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from edge_agent.beliefs import CloudBeliefs
from edge_agent.settings import EdgeSettings
from scout_core.codec.transform_basis import TransformBasis
from scout_core.control.cost import CostModel, Stage
from scout_core.control.estimator import GoodputEstimator
from scout_core.control.offers import QualityTable
from scout_core.daemon.contexts import ContextStore, StoredContext, context_hash
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine, KvCache
from scout_core.engine.loading import ModelTokenizer
from scout_core.engine.scoring import ScoutScorer
from scout_core.errors import ContextTooLongError, FingerprintMismatchError, UnsupportedModelError
from scout_core.models.quality import UNCALIBRATED
from scout_core.modes import ContextHash, PositionUnit, TenantId
from scout_core.rpc.registration import ModelDescription

StoredEdgeContext = StoredContext[KvCache]


@dataclass(frozen=True, slots=True)
class ScoutModel:
    """The scout and how it scores."""

    engine: Engine
    scorer: ScoutScorer
    selector_name: str


@dataclass(slots=True)
class EdgeHost:
    """Everything that computing a payload needs.

    ``replica`` is the cloud's model held here (KV modes); ``scout`` scores positions. At least
    one of them is there.
    """

    settings: EdgeSettings
    worker: TorchWorker
    replica: Engine | None
    replica_scorer: ScoutModel | None
    scout: ScoutModel | None
    quality: QualityTable
    profile_name: str
    contexts: ContextStore[KvCache]
    scout_contexts: ContextStore[KvCache]
    tokenizer: ModelTokenizer | None = None
    """The cloud's tokenizer, held without its model."""
    profile_cloud: str = ""
    """Fingerprint of the cloud model that ``quality`` was measured with; empty: any."""
    transform: TransformBasis | None = None
    """Calibrated for the replica's KV, if there is one."""
    estimator: GoodputEstimator = field(default_factory=GoodputEstimator)
    costs: CostModel = field(default_factory=CostModel)
    beliefs: CloudBeliefs = field(default_factory=CloudBeliefs)

    @property
    def tokenizing(self) -> Engine | ModelTokenizer:
        """Whose tokenizer splits contexts: the cloud's where it is held here, else the scout's."""
        engine = self.replica or self.tokenizer or (self.scout.engine if self.scout else None)
        if engine is None:
            raise UnsupportedModelError(
                "This agent holds no model; set scout_model, cloud_model or both."
            )
        return engine

    @property
    def tenant(self) -> TenantId:
        return TenantId(self.settings.tenant)

    def holds(self, model: ModelDescription) -> bool:
        """Whether the replica is exactly the cloud's model."""
        return self.replica is not None and self.replica.fingerprint == model.fingerprint

    def shared_transform(self, model: ModelDescription) -> TransformBasis | None:
        """The transform that KV for this cloud may go through: both ends hold the same one."""
        if self.transform is None or not self.holds(model):
            return None
        return self.transform if self.transform.digest == model.transform else None

    def position_unit(self, model: ModelDescription) -> PositionUnit:
        """What a selection counts for this cloud: its tokens where this end can tell them.

        Raises:
            FingerprintMismatchError: what is configured as the cloud's tokenizer is another.
        """
        if self.tokenizing.tokenizer_fingerprint == model.tokenizer_fingerprint:
            return PositionUnit.CLOUD_TOKENS
        if self.replica is None and self.tokenizer is None:
            return PositionUnit.CHARACTERS
        raise FingerprintMismatchError(
            f"{self.tokenizing.name} and the cloud's {model.name} split text differently: set "
            "cloud_model or cloud_tokenizer to the cloud's model, or leave both empty for a scout "
            "without the cloud's tokenizer.",
            edge=self.tokenizing.tokenizer_fingerprint,
            cloud=model.tokenizer_fingerprint,
        )

    def quality_with(self, model: ModelDescription) -> QualityTable:
        """The profile's figures where they were measured with this cloud model."""
        return self.quality if self.profile_cloud in ("", model.fingerprint) else UNCALIBRATED

    def put_context(self, text: str) -> tuple[ContextHash, StoredEdgeContext]:
        """Stores a context's text and tokens.

        Raises:
            ContextTooLongError: beyond this agent's limit.
        """
        engine = self.tokenizing
        tokens = engine.prompt.context_tokens(text)
        limit = min(engine.context_limit_tokens, self.settings.context_limit_tokens)
        if len(tokens) > limit:
            raise ContextTooLongError(
                f"The context has {len(tokens)} tokens, this agent accepts {limit}; shorten it or "
                "raise context_limit_tokens.",
                context_tokens=len(tokens),
                limit_tokens=limit,
            )
        key = context_hash(tokens, engine.tokenizer_fingerprint)
        now = time.monotonic()
        return key, self.contexts.put_tokens(self.tenant, key, tokens, now, text)

    async def prefill_ahead(self, key: ContextHash, stored: StoredEdgeContext) -> None:
        """Fills the replica's cache of a context, so that KV modes find it ready."""
        if self.replica is None or stored.cache is not None:
            return
        started_s = time.monotonic()
        cache = self.replica.new_cache(len(stored.tokens))
        prefix = (*self.replica.prompt.head_tokens, *stored.tokens)
        blocks = self.replica.prefill_blocks(cache, prefix)
        while await self.worker.run(next, blocks, None) is not None:
            pass
        now = time.monotonic()
        self.costs.observe(Stage.EDGE_PREFILL, len(prefix), now - started_s)
        self.contexts.put_cache(self.tenant, key, cache, now)
