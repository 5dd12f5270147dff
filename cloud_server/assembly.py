"""From payload blocks to a cache that is ready for the question.

One assembler per session. Blocks arrive in stream order; each is decoded and injected as it comes,
in the torch thread, so that decoding overlaps the transfer. The rules of DESIGN §3: any received
prefix of KV blocks is a valid prefix cache, and what is missing at the end is prefilled from
tokens. It does not know streams or credits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from cloud_server.character_context import CharacterContext, require_unit
from cloud_server.host import ModelHost
from cloud_server.refining import RefinableBlocks
from scout_core.codec.base import CodecId
from scout_core.codec.positions import decode_positions
from scout_core.codec.registry import codec_of_block
from scout_core.codec.tokens import decode_tokens
from scout_core.control.coding import KvCoding, inject_stage
from scout_core.control.cost import Stage
from scout_core.engine import KvCache
from scout_core.errors import (
    DigestMismatchError,
    FingerprintMismatchError,
    PayloadError,
    UnknownContextError,
)
from scout_core.modes import Execution, PositionUnit, TenantId
from scout_core.protocol.blocks import Block, BlockHeader, BlockKind
from scout_core.protocol.opening import OpenParameters

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PreparedContext:
    """A cache of the context, and how it came to be."""

    cache: KvCache
    execution: Execution | None = None
    degradation: str = ""


@dataclass(slots=True)
class PayloadAssembler:
    """Consumes the blocks of one session.

    Args:
        host: model, store and torch thread.
        parameters: what the edge opened the session with.
        tenant: whose contexts may be used.
    """

    host: ModelHost
    parameters: OpenParameters
    tenant: TenantId
    inject_s: float = 0.0
    prefill_s: float = 0.0
    _tokens: list[int] = field(default_factory=list)
    _selection: Positions | None = None
    _cache: KvCache | None = None
    _kept_received: int = 0
    _characters: CharacterContext = field(init=False)
    _refinable: RefinableBlocks = field(init=False)

    def __post_init__(self) -> None:
        self._refinable = RefinableBlocks(self.host.engine.geometry)
        self._characters = CharacterContext(self.host, self.parameters, self.tenant)

    @property
    def _head_length(self) -> int:
        return len(self.host.engine.prompt.head_tokens)

    @property
    def _prefix_length(self) -> int:
        return self._head_length + self.parameters.context_tokens

    async def add(self, block: Block) -> None:
        """Takes the next block.

        Raises:
            PayloadError: the block contradicts the session or does not decode.
            FingerprintMismatchError: KV of another model.
        """
        require_unit(block, self.parameters.position_unit)
        match block.header.kind:
            case BlockKind.TEXT | BlockKind.SPANS:
                self._characters.add(block)
            case BlockKind.TOKENS:
                self._add_tokens(block)
            case BlockKind.INDICES:
                self._add_indices(block)
            case BlockKind.KV:
                await self._add_kv(block)
            case BlockKind.KV_SELECTED:
                await self._add_selected_kv(block)
            case BlockKind.KV_REFINEMENT:
                await self._add_refinement(block)

    async def prepare(self) -> PreparedContext:
        """The cache, once the payload is committed. The assembler keeps nothing after that.

        Sparse execution needs the kept tokens alone; they may come without the others, and are
        then used once and not stored, for the context hash cannot be checked.

        Raises:
            UnknownContextError: tokens are needed and neither sent nor stored.
            DigestMismatchError: the tokens are not those of the context hash.
            PayloadError: KV is missing and no tokens can replace it.
        """
        started_s = time.monotonic()
        if self.parameters.position_unit is PositionUnit.CHARACTERS:
            context = await self._characters.tokenised()
            self.parameters = replace(self.parameters, context_tokens=len(context.tokens))
            self._selection = context.selection
        if self._has_kept_tokens_only():
            prepared = await self._sparse(tuple(self._tokens))
        else:
            self._store_tokens()
            if self.parameters.mode.carries_kv and self._cache is not None:
                prepared = await self._complete_kv(self._cache)
            else:
                prepared = await self._from_tokens()
        self.prefill_s += time.monotonic() - started_s
        # A complete session lingers for a resume; its KV must not linger with it.
        self._cache, self._selection, self._tokens = None, None, []
        self._refinable.clear()
        said = "; ".join(filter(None, (self._refinable.summary, prepared.degradation)))
        return replace(prepared, degradation=said)

    def _add_tokens(self, block: Block) -> None:
        header = block.header
        if header.start != len(self._tokens):
            raise PayloadError(f"Token block starts at {header.start}, not {len(self._tokens)}.")
        if header.start + header.count > self.parameters.context_tokens:
            raise PayloadError("More token ids than the session's context_tokens.")
        tokens = decode_tokens(block.body, self.host.engine.vocabulary, header.count)
        self._tokens.extend(tokens.tolist())

    def _add_indices(self, block: Block) -> None:
        if self._selection is not None:
            raise PayloadError("A session carries one selection; a second INDICES block came.")
        self._selection = decode_positions(
            block.body, self.parameters.context_tokens, block.header.count
        )

    async def _add_kv(self, block: Block) -> None:
        cache = self._kv_cache()
        header = block.header
        if header.start + header.count > self._prefix_length:
            raise PayloadError(f"KV block ends beyond the prefix of {self._prefix_length} tokens.")
        started_s = time.monotonic()
        await self.host.worker.run(self._inject, cache, block)
        self._note_inject(header, time.monotonic() - started_s)

    def _inject(self, cache: KvCache, block: Block) -> None:
        header, payload = block.header, block.body
        positions = range(header.start, header.start + header.count)
        self.host.engine.inject(cache, header.start, self._decoded(header, payload, positions))
        self._refinable.hold(header, payload)

    def _decoded(
        self, header: BlockHeader, payload: bytes, positions: Sequence[int]
    ) -> torch.Tensor:
        """A block's KV, at these absolute positions."""
        codec = codec_of_block(header.codec_id, positions, self.host.transform)
        return codec.decode(payload, self.host.engine.geometry, header.count)

    async def _add_refinement(self, block: Block) -> None:
        cache = self._kv_cache()
        payload = self._refinable.refined(block)
        started_s = time.monotonic()
        await self.host.worker.run(self._refine, cache, block.header, payload)
        self._refinable.accept(block, payload)
        elapsed_s = time.monotonic() - started_s
        self.inject_s += elapsed_s
        self.host.cost_model.observe(Stage.CLOUD_REFINE, block.header.count, elapsed_s)

    def _refine(self, cache: KvCache, header: BlockHeader, payload: bytes) -> None:
        """In place: nobody has seen this cache yet."""
        positions = range(header.start, header.start + header.count)
        kv = self._decoded(header, payload, positions)
        cache.tensor(positions.start, positions.stop).copy_(kv)

    async def _add_selected_kv(self, block: Block) -> None:
        cache = self._kv_cache()
        kept = self._kept_positions()
        header = block.header
        if header.start != self._kept_received or header.start + header.count > len(kept):
            raise PayloadError("Selected KV does not continue the selection where it stopped.")
        positions = kept[header.start : header.start + header.count]
        started_s = time.monotonic()
        await self.host.worker.run(self._inject_selected, cache, block, positions)
        self._kept_received += header.count
        self._note_inject(header, time.monotonic() - started_s)

    def _inject_selected(self, cache: KvCache, block: Block, positions: Positions) -> None:
        kept = positions.tolist()
        kv = self._decoded(block.header, block.body, kept)
        self.host.engine.inject_selected(cache, kept, kv, self._prefix_length)

    def _note_inject(self, header: BlockHeader, elapsed_s: float) -> None:
        self.inject_s += elapsed_s
        coded = header.codec_id == CodecId.TRANSFORM
        stage = inject_stage(KvCoding.TRANSFORM if coded else KvCoding.PLAIN)
        self.host.cost_model.observe(stage, header.count, elapsed_s)

    def _kv_cache(self) -> KvCache:
        if self.parameters.model_fingerprint != self.host.engine.fingerprint:
            raise FingerprintMismatchError(
                "KV of another model cannot be used; use the model this server names in status, "
                "or scout mode.",
                expected=self.host.engine.fingerprint,
                got=self.parameters.model_fingerprint,
            )
        if self._cache is None:
            self._cache = self.host.engine.new_cache()
        return self._cache

    def _kept_positions(self) -> Positions:
        """Absolute prefix positions of head and selection."""
        head = np.arange(self._head_length, dtype=np.int64)
        if self._selection is None:
            raise PayloadError("Selected KV came before its INDICES block.")
        return np.concatenate([head, self._selection + self._head_length])

    def _has_kept_tokens_only(self) -> bool:
        return (
            self._selection is not None
            and self.parameters.execution is Execution.SPARSE
            and len(self._tokens) == len(self._selection) < self.parameters.context_tokens
        )

    def _store_tokens(self) -> None:
        if not self._tokens:
            return
        tokens = tuple(self._tokens)
        if len(tokens) != self.parameters.context_tokens:
            raise PayloadError(
                f"{len(tokens)} of {self.parameters.context_tokens} token ids arrived."
            )
        if self.host.hash_of(tokens) != self.parameters.context_hash:
            raise DigestMismatchError("The token ids do not have the session's context hash.")
        self.host.contexts.put_tokens(
            self.tenant, self.parameters.context_hash, tokens, time.monotonic()
        )

    async def _complete_kv(self, cache: KvCache) -> PreparedContext:
        if self._selection is not None:
            if self._kept_received != len(self._kept_positions()):
                raise PayloadError("The payload ended before all selected KV had arrived.")
            return PreparedContext(cache)
        missing = self._prefix_length - cache.length
        if missing == 0:
            return PreparedContext(cache)
        prefix = (*self.host.engine.prompt.head_tokens, *self._known_tokens())
        await self.host.extend(cache, prefix[cache.length :])
        return PreparedContext(
            cache, degradation=f"the cloud computed the last {missing} positions from tokens"
        )

    def _known_tokens(self) -> tuple[int, ...]:
        """Raises UnknownContextError when the tokens were neither sent nor stored."""
        key = self.parameters.context_hash
        return self.host.contexts.get(self.tenant, key, time.monotonic()).tokens

    async def _from_tokens(self) -> PreparedContext:
        tokens = self._known_tokens()
        if len(tokens) != self.parameters.context_tokens:
            raise UnknownContextError("The stored context has another length; send its tokens.")
        if self._selection is None or len(self._selection) == len(tokens):
            cache = await self.host.full_cache(self.tenant, self.parameters.context_hash, tokens)
            return PreparedContext(cache, Execution.EVICT)
        kept = self._kept_positions()
        match self.parameters.execution or Execution.EVICT:
            case Execution.EVICT:
                full = await self.host.full_cache(self.tenant, self.parameters.context_hash, tokens)
                cache = await self.host.worker.run(self.host.engine.evict, full, kept.tolist())
                return PreparedContext(cache, Execution.EVICT)
            case Execution.SPARSE:
                selection = self._selection
                return await self._sparse(tuple(tokens[index] for index in selection))

    async def _sparse(self, kept_context_tokens: tuple[int, ...]) -> PreparedContext:
        kept = self._kept_positions()
        started_s = time.monotonic()
        cache = await self.host.worker.run(
            self.host.engine.sparse_prefill,
            (*self.host.engine.prompt.head_tokens, *kept_context_tokens),
            kept.tolist(),
            self._prefix_length,
        )
        elapsed_s = time.monotonic() - started_s
        self.host.cost_model.observe(Stage.CLOUD_SPARSE, len(kept), elapsed_s)
        return PreparedContext(cache, Execution.SPARSE)
