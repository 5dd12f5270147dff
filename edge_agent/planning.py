"""From a question to a decision: facts, offers, situation, policy. Fast and without I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from edge_agent.character_payload import CharacterSizes, require_short_enough
from edge_agent.cloud_view import CloudView
from edge_agent.host import EdgeHost, StoredEdgeContext
from scout_core.codec.positions import bound_bytes
from scout_core.codec.registry import codec_for_mode
from scout_core.codec.tokens import token_bytes
from scout_core.codec.transform import expected_bytes
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_runs import grade_bytes
from scout_core.control.coding import KvCoding
from scout_core.control.cost import Stage
from scout_core.control.offers import (
    Offer,
    OfferSources,
    RequestFacts,
    feasible_offers,
)
from scout_core.control.policy import Decision, Policy, Situation
from scout_core.control.sizes import BLOCK_HEADER_BYTES
from scout_core.geometry import KvGeometry
from scout_core.modes import ContextHash, Execution, Mode, PositionUnit
from scout_core.rpc.requests import GenerateParameters

LEAST_COMPUTE_ERROR: Final = 0.1
"""Relative scatter assumed of predicted compute times: hosts are shared, and so are their cores."""
WIRE_BLOCK_TOKENS: Final = 32
"""Positions per KV block: one key group of the codecs, and the smallest piece whose coding can
change on the way (0.7 MB of bf16 for a model like SmolLM2-135M)."""
TRANSFORM_BLOCK_TOKENS: Final = 128
"""The same through the transform: about the bytes of 32 positions at 4 bits, and matrix products of
fewer columns are slower (``codec/README.md``)."""


def block_tokens(coding: KvCoding) -> int:
    """Positions per KV block."""
    return TRANSFORM_BLOCK_TOKENS if coding.is_transform else WIRE_BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class CodecSizes:
    """Sizes from the codecs themselves; see ``scout_core.control.sizes.PayloadSizes``.

    ``basis`` is the transform that both ends hold; without one there is no ``transform``.
    """

    geometry: KvGeometry
    vocabulary: int
    basis: TransformBasis | None = None

    def kv_bytes(self, mode: Mode, positions: int) -> int:
        codec = codec_for_mode(mode)
        full, rest = divmod(positions, WIRE_BLOCK_TOKENS)
        whole = full * (codec.encoded_bytes(self.geometry, WIRE_BLOCK_TOKENS) + BLOCK_HEADER_BYTES)
        if rest == 0:
            return whole
        return whole + codec.encoded_bytes(self.geometry, rest) + BLOCK_HEADER_BYTES

    @property
    def transform(self) -> TransformKvSizes | None:
        """Sizes of transform-coded KV."""
        return None if self.basis is None else TransformKvSizes(self.basis)

    def index_bytes(self, context_tokens: int, kept: int) -> int:
        return bound_bytes(context_tokens, kept) + BLOCK_HEADER_BYTES

    def token_bytes(self, tokens: int) -> int:
        return token_bytes(self.vocabulary, tokens) + BLOCK_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class TransformKvSizes:
    """See ``scout_core.control.coding.TransformSizes``."""

    basis: TransformBasis

    def transform_bytes(self, positions: int) -> int:
        return self._at(self.basis.int4_level, positions)

    def graded_bytes(self, positions: int) -> int:
        return self._at(self.basis.graded_level, positions) + grade_bytes(positions)

    def _at(self, level: int, positions: int) -> int:
        blocks = -(-positions // TRANSFORM_BLOCK_TOKENS)
        return expected_bytes(self.basis, level, positions, blocks) + blocks * BLOCK_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Question:
    """One request, resolved: what is asked about which stored context, and since when."""

    parameters: GenerateParameters
    key: ContextHash
    stored: StoredEdgeContext
    deadline_s: float
    arrived_s: float

    def elapsed_s(self, now: float) -> float:
        """Since it arrived."""
        return now - self.arrived_s

    def time_left_s(self, now: float) -> float:
        """Until its first token is due; negative when it is late."""
        return self.deadline_s - self.elapsed_s(now)


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision with what it was made from."""

    decision: Decision
    offers: tuple[Offer, ...]
    facts: RequestFacts
    link_bytes_per_s: float
    unit: PositionUnit = PositionUnit.CLOUD_TOKENS
    """What the selection counts on the wire."""

    @property
    def offer(self) -> Offer:
        return self.decision.offer


@dataclass(frozen=True, slots=True)
class Planner:
    """Chooses how to serve a question."""

    host: EdgeHost
    policy: Policy

    def plan(self, question: Question, view: CloudView, round_trip_s: float, now: float) -> Plan:
        """The best offer for the link as it is.

        Raises:
            ModeUnavailableError: the forced mode or retention cannot be done here.
            FingerprintMismatchError: the configured tokenizer is not the cloud's.
            ContextTooLongError: more characters than the wire can count.
        """
        host = self.host
        unit = host.position_unit(view.model)
        facts = self._facts(question, view, now)
        forecast = host.estimator.forecast(now, round_trip_s)
        sizes = CodecSizes(
            view.model.geometry, view.model.vocabulary, host.shared_transform(view.model)
        )
        sources = OfferSources(
            sizes=sizes,
            quality=host.quality_with(view.model),
            edge_costs=host.costs,
            cloud_costs=view.costs,
            transform=sizes.transform,
            link_bytes_per_s=forecast.median_bytes_per_s,
        )
        if unit is PositionUnit.CHARACTERS:
            require_short_enough(question.stored.text)
            sources = replace(sources, sizes=CharacterSizes(question.stored.text))
        offers = feasible_offers(facts, sources)
        situation = Situation(
            forecast=forecast,
            deadline_s=question.deadline_s,
            elapsed_s=question.elapsed_s(now),
            edge_queue_s=host.worker.queue_s,
            cloud_queue_s=view.queue_s,
            round_trip_s=round_trip_s,
            compute_error=max(LEAST_COMPUTE_ERROR, host.costs.relative_error(Stage.EDGE_SCORE)),
            target_probability=host.settings.target_probability,
        )
        decision = self.policy.choose(offers, situation)
        known_rate = forecast.median_bytes_per_s if forecast.known else 0.0
        return Plan(decision, offers, facts, known_rate, unit)

    def _facts(self, question: Question, view: CloudView, now: float) -> RequestFacts:
        host, parameters = self.host, question.parameters
        engine = host.tokenizing
        return RequestFacts(
            context_tokens=len(question.stored.tokens),
            head_tokens=len(engine.prompt.head_tokens),
            tail_tokens=len(engine.prompt.tail_tokens(parameters.question)),
            cloud_context=host.beliefs.about(question.key, now),
            edge_has_cloud_model=host.holds(view.model),
            edge_has_scout=self._scout_serves(question),
            edge_holds_kv=question.stored.cache is not None,
            edge_holds_scout_kv=host.scout_contexts.find(host.tenant, question.key, now)
            is not None,
            forced_mode=parameters.mode,
            forced_retention=parameters.retention,
            forced_execution=parameters.execution,
        )

    def _scout_serves(self, question: Question) -> bool:
        """Whether there is a scout, and its window holds the context.

        A caller who insists on a retention is told by the scout itself what does not fit.
        """
        host, scout = self.host, self.host.scout
        if scout is None or question.parameters.retention is not None:
            return scout is not None
        prompt, tokens = scout.engine.prompt, question.stored.tokens
        if scout.engine.tokenizer_fingerprint != host.tokenizing.tokenizer_fingerprint:
            tokens = prompt.context_tokens(question.stored.text)
        # A trained scout reads the question on both sides of the context.
        asked = 2 * len(prompt.tail_tokens(question.parameters.question))
        passed = len(prompt.head_tokens) + len(tokens) + asked
        return passed <= scout.engine.context_limit_tokens


def requested_execution(offer: Offer) -> Execution | None:
    """The execution to ask for: only scout mode has one."""
    return offer.execution if offer.mode is Mode.SCOUT else None
