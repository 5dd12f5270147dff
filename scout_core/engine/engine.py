"""The engine: one model in memory, with prefill, KV in and out, scoring and decoding.

Owns how work is cut into passes. Every method that runs the model does so in the calling thread
and holds no state between calls besides the caches it is given: callers interleave requests by
interleaving calls. It knows no modes, no wire and no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from scout_core.engine.attention import AttentionObserver
from scout_core.engine.decoding import Decoder
from scout_core.engine.detokenizer import Detokenizer
from scout_core.engine.forward_pass import Stack
from scout_core.engine.kv_cache import KvCache
from scout_core.engine.loading import LoadedModel, Progress, load_model
from scout_core.engine.options import EngineOptions
from scout_core.engine.prompt import PromptTemplate
from scout_core.engine.question_rows import QuestionRows
from scout_core.errors import (
    CodecError,
    ContextTooLongError,
    EmptyInputError,
    PositionsError,
    UnsupportedModelError,
)
from scout_core.geometry import KvGeometry
from scout_core.sampling import SamplingOptions

Positions = Sequence[int] | torch.Tensor


class Engine:
    """A loaded model. Build with ``Engine.load``.

    Attributes:
        name: the reference it was loaded from.
        fingerprint: equal fingerprints mean interchangeable KV.
        tokenizer_fingerprint: of tokenizer and chat template alone.
        geometry: shape of its KV per position.
        compute_dtype: ``float32`` or ``bfloat16``, what it computes in here.
        layers: decoder layers that run.
        heads: query heads per layer.
        vocabulary: token ids are below this.
        context_limit_tokens: most positions of prompt and answer together.
        block_tokens: positions per prefill block.
        prompt: tokenises prompts.
    """

    def __init__(self, model: LoadedModel, options: EngineOptions) -> None:
        config = model.config
        self._model = model
        stack = model.module.model if model.decodes else model.module
        self._stack = Stack(stack, model.device, model.dtype)
        self._tokenizer = model.tokenizer.backend_tokenizer
        head_dim = getattr(config, "head_dim", None)
        self.name = model.name
        self.fingerprint = model.fingerprint
        self.tokenizer_fingerprint = model.tokenizer_fingerprint
        self.layers: int = config.num_hidden_layers
        self.heads: int = config.num_attention_heads
        self.geometry = KvGeometry(
            self.layers, config.num_key_value_heads, head_dim or config.hidden_size // self.heads
        )
        self.compute_dtype = str(model.dtype).removeprefix("torch.")
        self.vocabulary: int = config.vocab_size
        self.hidden_size: int = config.hidden_size
        window: int = config.max_position_embeddings
        self.context_limit_tokens = min(window, options.context_limit_tokens or window)
        self.block_tokens = options.block_tokens
        self.prompt = PromptTemplate.from_tokenizer(model.tokenizer)

    @classmethod
    def load(cls, options: EngineOptions, on_progress: Progress | None = None) -> Engine:
        """Loads a model; seconds for the bundled one, minutes for large ones.

        Args:
            on_progress: called with (stage, fraction done), in order, ending with ("ready", 1.0).

        Raises:
            UnknownModelError: the reference leads nowhere.
            UnsupportedModelError: not a model that Scout can run.
        """
        progress: Progress = on_progress or _silent
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        engine = cls(load_model(options, progress), options)
        progress("ready", 1.0)
        return engine

    @property
    def module(self) -> Any:
        """transformers' model itself, for studies that batch questions: to read, not to change."""
        return self._model.module

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._model.stop_ids

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of an answer's tokens, without control tokens."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def new_cache(self, capacity_tokens: int = 0) -> KvCache:
        """An empty cache; a good guess of its final length saves copying."""
        return KvCache(self.geometry, self._stack.dtype, self._stack.device, capacity_tokens)

    def prefill(self, cache: KvCache, tokens: Sequence[int]) -> None:
        """Appends tokens to the cache. See ``prefill_blocks``."""
        for _ in self.prefill_blocks(cache, tokens):
            pass

    def prefill_states(
        self,
        cache: KvCache,
        tokens: Sequence[int],
        block_tokens: int | None = None,
        observer: AttentionObserver | None = None,
    ) -> torch.Tensor:
        """Appends tokens to the cache; hidden states after the final norm ``[count, hidden]``.

        Float32 on the CPU.

        Args:
            block_tokens: most tokens of a pass, for caches that no other host has to reproduce
                bit by bit; None: aligned blocks, as in ``prefill_blocks``.
            observer: is shown every layer's attention of every pass.

        Raises:
            ContextTooLongError, EmptyInputError: as ``prefill_blocks``.
        """
        ids = self._checked(tokens, cache.next_position)
        cache.reserve(len(tokens))
        blocks = self._blocks(ids, cache.next_position, block_tokens)
        return torch.cat([self._append(cache, part, observer).float().cpu() for part in blocks])

    def prefill_blocks(
        self, cache: KvCache, tokens: Sequence[int]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Appends tokens from ``cache.next_position`` on, a block per iteration.

        Blocks end at multiples of ``block_tokens``, so that a prefix is always computed in the
        same blocks, and by the same kernels, wherever an earlier call stopped at such a multiple.

        Yields:
            Start position and KV view ``[layers, 2, kv_heads, count, head_dim]`` of each block.

        Raises:
            ContextTooLongError: more than the model's window or the configured limit.
            EmptyInputError: no tokens.
        """
        ids = self._checked(tokens, cache.next_position)
        cache.reserve(len(tokens))
        for block in self._blocks(ids, cache.next_position):
            start, count = cache.next_position, block.shape[0]
            self._append(cache, block)
            yield start, cache.tensor(cache.length - count, cache.length)

    def inject(self, cache: KvCache, start: int, kv: torch.Tensor) -> None:
        """Appends KV that was computed elsewhere, for positions ``start`` to ``start + count``.

        Args:
            kv: float ``[layers, 2, kv_heads, count, head_dim]``; rounded to the compute type.

        Raises:
            PositionsError: ``start`` is not where the cache ends.
            CodecError: wrong shape or type, or values that are not finite.
        """
        if start != cache.next_position:
            raise PositionsError(
                f"KV of position {start} came where position {cache.next_position} was due; "
                "send blocks in order and without gaps.",
            )
        count = kv.shape[3] if kv.ndim == 5 else 0
        self._inject(cache, torch.arange(start, start + count), kv, start + count)

    def inject_selected(
        self, cache: KvCache, positions: Positions, kv: torch.Tensor, next_position: int
    ) -> None:
        """Appends KV of selected positions, in as many calls as the caller likes.

        Args:
            positions: original positions, ascending, beyond the stored ones; gaps are meant.
            kv: float ``[layers, 2, kv_heads, len(positions), head_dim]``.
            next_position: where the tail will continue: the full prefix's length.

        Raises:
            PositionsError: unsorted, repeated, already passed, or not before ``next_position``.
            CodecError: wrong shape or type, or values that are not finite.
        """
        wanted = _as_positions(positions)
        first_free = int(cache.positions[-1]) + 1 if cache.length else 0
        self._check_positions(wanted, first_free, next_position)
        self._inject(cache, wanted, kv, next_position)

    def evict(self, cache: KvCache, keep_positions: Positions) -> KvCache:
        """A cache of only these positions; the given one stays as it is.

        Args:
            keep_positions: original positions, ascending, all of them stored; head included.

        Returns:
            A cache of its own, with the same ``next_position``.

        Raises:
            PositionsError: unsorted, repeated or not stored.
        """
        wanted = _as_positions(keep_positions)
        self._check_positions(wanted, 0, cache.next_position)
        entries = torch.searchsorted(cache.positions, wanted)
        if bool((entries >= cache.length).any()) or not torch.equal(
            cache.positions[entries], wanted
        ):
            raise PositionsError("Asked to keep positions that the cache does not hold.")
        return cache.gather(entries)

    def sparse_prefill(
        self, tokens: Sequence[int], positions: Positions, next_position: int
    ) -> KvCache:
        """Prefills only these tokens, at their original positions, in one pass.

        Args:
            tokens: the kept tokens, head included.
            positions: their original positions, ascending.
            next_position: where the tail will continue: the full prefix's length.

        Raises:
            PositionsError: not one position per token, unsorted, or not before ``next_position``.
            ContextTooLongError, EmptyInputError: as ``prefill_blocks``.
        """
        wanted = _as_positions(positions)
        if wanted.shape[0] != len(tokens):
            raise PositionsError(f"{len(tokens)} tokens came with {wanted.shape[0]} positions.")
        self._check_positions(wanted, 0, next_position)
        ids = self._checked(tokens, next_position - len(tokens))
        cache = self.new_cache()
        with torch.no_grad():
            self._stack.forward(cache, ids, wanted, next_position)
        return cache

    def decoder(
        self, cache: KvCache, tail_tokens: Sequence[int], sampling: SamplingOptions
    ) -> Decoder:
        """An answer to be decoded after ``cache`` and a tail; runs nothing yet.

        The decoder works on a fork: the given cache can serve other questions meanwhile.

        Raises:
            ContextTooLongError: the tail does not fit in the window.
            EmptyInputError: no tail.
            UnsupportedModelError: the engine was cut to its first layers.
        """
        if not self._model.decodes:
            raise UnsupportedModelError(
                f"{self.name} runs only its first {self.layers} layers: it scores, but cannot "
                "answer. Load it without 'layers'.",
            )
        self._checked(tail_tokens, cache.next_position)
        room = self.context_limit_tokens - cache.next_position - len(tail_tokens) + 1
        return Decoder(
            partial(self._logits_after, cache.fork()),
            tail_tokens,
            sampling,
            self._model.stop_ids,
            Detokenizer(self._tokenizer),
            room,
        )

    def question_attention(self, cache: KvCache, tail_tokens: Sequence[int]) -> torch.Tensor:
        """How much each head of each layer looks at each cached position when asked a question.

        Softmax attention of the tail's rows over everything they see, restricted to the cached
        positions and averaged over the rows. The cache is not changed.

        Returns:
            float32 ``[layers, heads, cache.length]`` on the CPU.

        Raises:
            ContextTooLongError, EmptyInputError: as ``prefill_blocks``.
        """
        rows = QuestionRows(self.layers, self.heads, cache.length, self._stack.device)
        self.observe(cache, tail_tokens, rows)
        rows.count(len(tail_tokens))
        return rows.mean.cpu()

    def observe(
        self, cache: KvCache, tail_tokens: Sequence[int], observer: AttentionObserver
    ) -> None:
        """Runs a tail after the cached positions and shows the observer every layer's attention.

        Long tails come in several blocks, in order. The cache is not changed.

        Raises:
            ContextTooLongError, EmptyInputError: as ``prefill_blocks``.
        """
        ids = self._checked(tail_tokens, cache.next_position)
        fork = cache.fork()
        for block in self._blocks(ids, cache.next_position):
            self._append(fork, block, observer)

    def _logits_after(self, cache: KvCache, tokens: Sequence[int]) -> torch.Tensor:
        """Appends tokens in aligned blocks; logits ``[vocabulary]`` in float32 after the last."""
        hidden = torch.empty(0)
        for block in self._blocks(torch.tensor(tokens, dtype=torch.int64), cache.next_position):
            hidden = self._append(cache, block)
        with torch.no_grad():
            head: Any = self._model.module.get_output_embeddings()
            return head(hidden[-1]).float()

    def _blocks(
        self, ids: torch.Tensor, start: int, block_tokens: int | None = None
    ) -> Iterator[torch.Tensor]:
        """Cuts tokens that begin at position ``start`` at the multiples of ``self.block_tokens``.

        ``block_tokens`` cuts them into pieces of that many instead, wherever they begin.
        """
        if block_tokens is not None:
            yield from ids.split(block_tokens)
            return
        done = 0
        while done < ids.shape[0]:
            block = ids[done : done + self.block_tokens - (start + done) % self.block_tokens]
            yield block
            done += block.shape[0]

    def _append(
        self, cache: KvCache, ids: torch.Tensor, observer: AttentionObserver | None = None
    ) -> torch.Tensor:
        stop = cache.next_position + ids.shape[0]
        with torch.no_grad():
            positions = torch.arange(cache.next_position, stop)
            return self._stack.forward(cache, ids, positions, stop, observer)

    def _inject(
        self, cache: KvCache, positions: torch.Tensor, kv: torch.Tensor, next_position: int
    ) -> None:
        count = positions.shape[0]
        shape = self.geometry.shape(count)
        if tuple(kv.shape) != shape or count == 0:
            raise CodecError(f"KV has shape {tuple(kv.shape)}, this model's is {shape}.")
        if not kv.is_floating_point():
            raise CodecError(f"KV must be floating point, got {kv.dtype}.")
        rounded = kv.to(device=self._stack.device, dtype=self._stack.dtype)
        if not bool(torch.isfinite(rounded).all()):
            raise CodecError("KV holds values that are not finite; it was damaged or miscomputed.")
        self._check_window(next_position)
        cache.reserve(count)
        cache.reserved(count).copy_(rounded)
        cache.commit(positions, next_position)

    def _checked(self, tokens: Sequence[int], start: int) -> torch.Tensor:
        """The tokens as int64, known to fit vocabulary and window when put at ``start``."""
        if not tokens:
            raise EmptyInputError("There are no tokens to run.")
        self._check_window(start + len(tokens))
        if min(tokens) < 0 or max(tokens) >= self.vocabulary:
            raise CodecError(
                f"Token ids must be in 0..{self.vocabulary - 1}; these are another tokenizer's.",
            )
        return torch.tensor(tokens, dtype=torch.int64)

    def _check_window(self, stop: int) -> None:
        if stop > self.context_limit_tokens:
            raise ContextTooLongError(
                f"The prompt needs {stop} positions, {self.name} takes "
                f"{self.context_limit_tokens} here; shorten the context.",
                needed_tokens=stop,
                limit_tokens=self.context_limit_tokens,
            )

    def _check_positions(self, positions: torch.Tensor, start: int, stop: int) -> None:
        """Ascending, without repetition, inside ``start..stop``."""
        if positions.shape[0] == 0:
            raise PositionsError("No positions are selected; keep at least one.")
        if bool((positions.diff() <= 0).any()):
            raise PositionsError("Positions must be ascending and without repetition.")
        if int(positions[0]) < start or int(positions[-1]) >= stop:
            raise PositionsError(
                f"Positions {int(positions[0])}..{int(positions[-1])} are outside "
                f"{start}..{stop - 1}.",
            )


def _as_positions(positions: Positions) -> torch.Tensor:
    given = torch.as_tensor(positions)
    if given.numel() and (given.is_floating_point() or given.dtype is torch.bool):
        raise PositionsError(f"Positions must be whole numbers, got {given.dtype}.")
    return given.to(torch.int64).cpu()


def _silent(stage: str, fraction: float) -> None:
    """Progress that nobody watches."""
    del stage, fraction
