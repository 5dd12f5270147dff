"""The payload of one request as a stream of encoded blocks, made while it is being sent.

Order of blocks by mode (KV through the transform is graded where ``grading`` allows it):

    kv_*        KV blocks of head and context, position-major; on the way the codec may change,
                or TOKENS take the place of the rest; KV_REFINEMENT blocks where time is left
    kv_select   INDICES, then KV_SELECTED blocks of head and selection
    scout       INDICES (below retention 1.0), then TOKENS if the cloud lacks the context;
                SPANS and TEXT in their place where the cloud's tokenizer is not here

Every torch step is one job of the torch thread. The machine that sends the blocks is not known
here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from edge_agent.character_payload import spans_block, text_block
from edge_agent.host import EdgeHost, ScoutModel
from edge_agent.planning import Plan, Question, block_tokens
from edge_agent.refining import RUNGS, SentKv
from edge_agent.steering import Steering
from scout_core.codec.base import KvCodec
from scout_core.codec.embedded_bf16 import refinement
from scout_core.codec.positions import encode_positions
from scout_core.codec.registry import codec_for_mode
from scout_core.codec.tokens import encode_tokens
from scout_core.codec.transform import TransformCodec
from scout_core.control.coding import TRANSFORMED, KvCoding, encode_stage
from scout_core.control.cost import Stage
from scout_core.control.downgrade import CAUSE_RECOVERED, FinishWithTokens, Keep, SwitchTo
from scout_core.control.offers import CloudContext
from scout_core.engine import Engine, KvCache
from scout_core.engine.scoring import ScoredContext, ScoutContext
from scout_core.errors import ModeUnavailableError
from scout_core.modes import Execution, Mode, PositionUnit
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.events import ModeSwitched
from scout_core.protocol.opening import CAUSE_ALLOCATION
from scout_core.rpc.session_client import PayloadItem
from scout_core.selection import select_runs

NO_CODEC = 0
FULL = 1.0
GRADED_TRANSFORM = "transform_graded"
"""What a response calls the transform where positions had grades."""

Selection = npt.NDArray[np.int64]


@dataclass(slots=True)
class PayloadTimes:
    """What making the payload cost, seconds, what its indices weigh, and what coded its KV."""

    prefill_s: float = 0.0
    score_s: float = 0.0
    encode_s: float = 0.0
    indices_bytes: int = 0
    kv_codecs: list[str] = field(default_factory=list[str])
    """Codecs of KV blocks, in order of first use."""
    without_transform: bool = False
    """Whether plain groups stood in for the transform, which the cloud does not hold."""


class PayloadSource:
    """Makes the blocks of one question in the chosen way."""

    def __init__(self, host: EdgeHost, question: Question, plan: Plan, steering: Steering) -> None:
        self.times = PayloadTimes()
        self.plan = plan
        """What the payload follows; the cloud's scheduler may have asked for another."""
        self.mode = plan.offer.mode
        """How the latest block is coded; differs from the plan's after a switch."""
        self._host = host
        self._question = question
        self._offer = plan.offer
        self._cloud_context = plan.facts.cloud_context
        self._steering = steering
        self._grading = steering.grading
        self._transform = host.shared_transform(steering.view.model)
        self._sent = SentKv(steering.view.model.geometry)
        self._cache: KvCache | None = None
        """What the KV blocks are made from."""

    async def items(self) -> AsyncIterator[PayloadItem]:
        """Encoded blocks and switches, in stream order; made when they are asked for.

        On a scheduled uplink nothing is made before the cloud has said what it wants.
        """
        if self._steering.guidance is not None:
            plan = await self._steering.guidance.settled()
            if plan.offer is not self._offer:
                self._offer, self.mode = plan.offer, plan.offer.mode
                self.plan = self._steering.plan = plan
                yield ModeSwitched(self.mode, plan.offer.retention, CAUSE_ALLOCATION)
        match self._offer.mode:
            case Mode.KV_BF16 | Mode.KV_INT8 | Mode.KV_INT4:
                source = self._full_kv()
            case Mode.KV_SELECT:
                source = self._selected_kv()
            case Mode.SCOUT:
                source = self._scout()
        async for item in source:
            yield item

    async def _scout(self) -> AsyncIterator[PayloadItem]:
        tokens = self._question.stored.tokens
        selection: Selection | None = None
        if self._offer.retention < FULL:
            scored = await self._scored(self._scout_model())
            selection = select_runs(scored.scores, self._offer.retention)
        if self.plan.unit is PositionUnit.CHARACTERS:
            for block in self._character_blocks(selection):
                yield block
            return
        if selection is not None:
            yield self._indices_block(selection)
        if self._cloud_context is not CloudContext.ABSENT:
            return
        if selection is not None and self._offer.execution is Execution.SPARSE:
            tokens = tuple(tokens[index] for index in selection)
        yield self._tokens_block(tokens)

    def _character_blocks(self, selection: Selection | None) -> list[bytes]:
        """For a cloud whose tokenizer is not here: it maps characters to its own tokens."""
        text, blocks = self._question.stored.text, list[bytes]()
        if selection is not None:
            spans = self._scout_model().engine.prompt.context_spans(text)
            block, self.times.indices_bytes = spans_block(selection, spans, text)
            blocks.append(block)
        if self._cloud_context is CloudContext.ABSENT:
            blocks.append(text_block(text))
        return blocks

    def _tokens_block(self, tokens: tuple[int, ...]) -> bytes:
        body = encode_tokens(tokens, self._host.tokenizing.vocabulary)
        return encode_block(BlockKind.TOKENS, NO_CODEC, 0, len(tokens), body)

    async def _full_kv(self) -> AsyncIterator[PayloadItem]:
        async for start, kv in self._kv_parts(self._replica()):
            await self._steering.turn()
            verdict = self._steering.consider(self.mode, start, time.monotonic())
            match verdict:
                case SwitchTo(remainder, _, cause):
                    self.mode = remainder.mode
                    yield ModeSwitched(remainder.mode, FULL, cause)
                case FinishWithTokens():
                    self.mode = Mode.SCOUT
                    yield ModeSwitched(Mode.SCOUT, FULL, self._steering.finish_cause)
                    if self._cloud_context is CloudContext.ABSENT:
                        yield self._tokens_block(self._question.stored.tokens)
                    return
                case Keep():
                    pass
            positions = range(start, start + kv.shape[3])
            coding = self._steering.coding(self.mode, start)
            if coding is KvCoding.GRADED and not self._grading.is_settled:
                await self._grade()
            yield await self._encode(BlockKind.KV, start, kv, (coding, positions))
        if self._cache is not None:
            async for item in self._refinements(self._cache):
                yield item

    async def _refinements(self, cache: KvCache) -> AsyncIterator[PayloadItem]:
        """What makes the blocks finer, while there is time for all that is missing."""
        rungs = tuple(RUNGS)
        while (mode := self._steering.refinement(self._sent, time.monotonic())) is not None:
            if self.mode not in rungs[rungs.index(mode) :]:
                self.mode = mode
                yield ModeSwitched(mode, FULL, CAUSE_RECOVERED)
            block, finer = next(self._sent.below(mode)), RUNGS[mode]
            kv = cache.tensor(block.start, block.stop)
            started_s = time.monotonic()
            body = await self._host.worker.run(refinement, kv, block.codec, finer)
            elapsed_s = time.monotonic() - started_s
            self.times.encode_s += elapsed_s
            self._host.costs.observe(Stage.EDGE_REFINE, block.count, elapsed_s)
            self._note_codec(finer)
            self._sent.refined(block, mode)
            codec_id = int(finer.codec_id)
            yield encode_block(BlockKind.KV_REFINEMENT, codec_id, block.start, block.count, body)

    async def _kv_parts(self, replica: Engine) -> AsyncIterator[tuple[int, torch.Tensor]]:
        """KV of the prefix in wire blocks: from the store, or as it is being computed."""
        cache = self._cache = self._question.stored.cache
        if cache is not None:
            start = 0
            while start < cache.length:
                stop = min(start + self._block_tokens(start), cache.length)
                yield start, cache.tensor(start, stop)
                start = stop
            return
        cache = self._cache = replica.new_cache(len(self._question.stored.tokens))
        prefix = (*replica.prompt.head_tokens, *self._question.stored.tokens)
        steps = replica.prefill_blocks(cache, prefix)
        started_s = time.monotonic()
        while (step := await self._host.worker.run(next, steps, None)) is not None:
            self.times.prefill_s += time.monotonic() - started_s
            first, computed = step
            offset = 0
            while offset < computed.shape[3]:
                stop = offset + self._block_tokens(first + offset)
                yield first + offset, computed[:, :, :, offset:stop]
                offset = stop
            started_s = time.monotonic()
        self._host.costs.observe(Stage.EDGE_PREFILL, len(prefix), self.times.prefill_s)
        self._keep(cache)

    async def _grade(self) -> None:
        """Has the replica read the question, over its complete cache of the context."""
        scorer, cache = self._host.replica_scorer, self._question.stored.cache
        if scorer is None or cache is None:
            self._grading.note(None)
        else:
            self._grading.note((await self._scored(scorer, cache)).importance)

    def _block_tokens(self, position: int) -> int:
        return block_tokens(self._steering.coding(self.mode, position))

    async def _selected_kv(self) -> AsyncIterator[PayloadItem]:
        replica = self._replica()
        cache = await self._prefilled(replica)
        scorer = self._host.replica_scorer
        if scorer is None:
            raise ModeUnavailableError("kv_select needs a scorer for the cloud's model.")
        scored = await self._scored(scorer, cache)
        selection = select_runs(scored.scores, self._offer.retention)
        self._grading.note(scored.importance, selection.tolist())
        yield self._indices_block(selection)
        head = np.arange(len(replica.prompt.head_tokens), dtype=np.int64)
        kept = np.concatenate([head, selection + len(head)])
        gathered = await self._host.worker.run(replica.evict, cache, kept.tolist())
        step = block_tokens(self._offer.coding)
        for start in range(0, gathered.length, step):
            stop = min(start + step, gathered.length)
            placed = (self._offer.coding, kept[start:stop].tolist())
            kv = gathered.tensor(start, stop)
            yield await self._encode(BlockKind.KV_SELECTED, start, kv, placed)

    async def _prefilled(self, replica: Engine) -> KvCache:
        if self._question.stored.cache is None:
            started_s = time.monotonic()
            await self._host.prefill_ahead(self._question.key, self._question.stored)
            self.times.prefill_s += time.monotonic() - started_s
        cache = self._question.stored.cache
        if cache is None:  # larger than the store: compute it for this request alone
            cache = replica.new_cache(len(self._question.stored.tokens))
            prefix = (*replica.prompt.head_tokens, *self._question.stored.tokens)
            await self._host.worker.run(replica.prefill, cache, prefix)
        return cache

    async def _scored(self, model: ScoutModel, prefix: KvCache | None = None) -> ScoredContext:
        """The context's tokens as the model reads them for the question."""
        host, question = self._host, self._question
        if prefix is None:
            held = host.scout_contexts.find(host.tenant, question.key, time.monotonic())
            prefix = held.cache if held is not None else None
        context = ScoutContext(question.stored.text, question.stored.tokens)
        started_s = time.monotonic()
        scored = await host.worker.run(
            model.scorer.score, context, question.parameters.question, prefix
        )
        now = time.monotonic()
        self.times.score_s += now - started_s
        if model is host.scout:
            passed = len(model.engine.prompt.tail_tokens(question.parameters.question))
            if prefix is None:
                passed += len(question.stored.tokens) + len(model.engine.prompt.head_tokens)
            host.costs.observe(Stage.EDGE_SCORE, passed, self.times.score_s)
            if prefix is None and scored.prefix is not None:
                host.scout_contexts.put_tokens(host.tenant, question.key, (), now)
                host.scout_contexts.put_cache(host.tenant, question.key, scored.prefix, now)
        return scored

    def _indices_block(self, selection: Selection) -> bytes:
        body = encode_positions(selection, len(self._question.stored.tokens))
        self.times.indices_bytes = len(body)
        return encode_block(BlockKind.INDICES, NO_CODEC, 0, len(selection), body)

    async def _encode(
        self,
        kind: BlockKind,
        start: int,
        kv: torch.Tensor,
        placed: tuple[KvCoding, Sequence[int]],
    ) -> bytes:
        """One block; ``placed`` says how it is coded and where its positions are in the prefix."""
        coding, positions = placed
        codec = self._codec(coding, positions)
        started_s = time.monotonic()
        body = await self._host.worker.run(codec.encode, kv)
        elapsed_s = time.monotonic() - started_s
        self.times.encode_s += elapsed_s
        self._host.costs.observe(encode_stage(self.mode, coding), kv.shape[3], elapsed_s)
        self._note_codec(codec)
        if kind is BlockKind.KV:
            self._sent.note(start, kv.shape[3], codec)
        return encode_block(kind, int(codec.codec_id), start, kv.shape[3], body)

    def _note_codec(self, codec: KvCodec) -> None:
        is_graded = isinstance(codec, TransformCodec) and codec.grades is not None
        name = GRADED_TRANSFORM if is_graded else codec.name
        if name not in self.times.kv_codecs:
            self.times.kv_codecs.append(name)

    def _codec(self, coding: KvCoding, positions: Sequence[int]) -> KvCodec:
        if coding.is_transform and self._transform is not None:
            grades = self._grading.of(positions) if coding is KvCoding.GRADED else None
            basis = self._transform
            level = basis.int4_level if grades is None else basis.graded_level
            return TransformCodec.at(basis, level, positions, grades)
        if self.mode in TRANSFORMED and self._transform is None:
            self.times.without_transform |= self._host.transform is not None
        return codec_for_mode(self.mode)

    def _keep(self, cache: KvCache) -> None:
        now = time.monotonic()
        self._host.contexts.put_cache(self._host.tenant, self._question.key, cache, now)

    def _replica(self) -> Engine:
        if self._host.replica is None:
            raise ModeUnavailableError("KV modes need the cloud's model on this edge.")
        return self._host.replica

    def _scout_model(self) -> ScoutModel:
        if self._host.scout is None:
            raise ModeUnavailableError("Retention below 1.0 needs a scout model on this edge.")
        return self._host.scout
