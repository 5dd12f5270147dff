"""A batched decoder for studies: Llama-family layers in plain torch, with attention in the open.

Owns the arithmetic that evaluation and training need and a serving engine does not offer: many
questions in one batch, one selection per row, any attention mask, weights that carry gradients.
It knows nothing of files, tokenizers or adapters; weights come in as stacks over layers.

Supports what Llama, Mistral and SmolLM2 have in common: RMSNorm, rotary positions over the whole
head, grouped-query attention, SwiGLU, tied or untied embeddings; what Qwen2 adds to that: biases
of queries, keys and values; and what Gemma 3 adds: norms of queries, keys and sublayer outputs,
GELU, scaled embeddings, local rotary frequencies, windows (of which it only knows that they must
not bite). The tests compare it with the engine's models and with transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scout_core.errors import UnsupportedModelError

PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
NORMS = ("input_layernorm", "post_attention_layernorm")
"""Before attention and before the MLP."""
EXTRA_NORMS = ("self_attn.q_norm", "self_attn.k_norm", "attention_output_norm", "mlp_output_norm")
"""Of queries and keys, and of what attention and MLP add; Gemma 3 has them."""
BIASES = tuple(f"{name}.bias" for name in PROJECTIONS[:3])
"""Of queries, keys and values; Qwen2 has them."""

Observer = Callable[[int, Tensor, Tensor], None]
"""Called per layer with (layer, queries [B, heads, L, D], keys [B, kv_heads, Lk, D]), rotated."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a Llama-family decoder."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    norm_epsilon: float
    embedding_scale: float = 1.0
    gelu: bool = False
    local_layers: frozenset[int] = frozenset()
    """Layers with a sliding window; they rotate by ``local_rope_theta``."""
    local_rope_theta: float = 0.0
    window: int | None = None
    """Positions that those see. Longer prompts are refused."""


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Weights as lists over layers: ``layer[name][i]`` is ``[out, in]`` (or ``[hidden]``)."""

    layer: Mapping[str, tuple[Tensor, ...]]
    embedding: Tensor
    output: Tensor
    final_norm: Tensor


@dataclass(slots=True)
class KeyValues:
    """A batch's cache: per layer keys and values ``[B, kv_heads, capacity, D]``, rotated keys.

    The first ``filled`` columns hold something; a pass writes behind them.
    """

    keys: list[Tensor]
    values: list[Tensor]
    filled: int

    def with_room(self, columns: Tensor | None, room: int, rows: Tensor | None = None) -> KeyValues:
        """A copy of ``columns`` [R, k] (None: all filled ones) with ``room`` free columns.

        Args:
            rows: int64 ``[R]``, the batch row that each row of ``columns`` is of; None: its own.
        """
        batch = self.keys[0].shape[0]
        owners = torch.arange(batch, device=self.keys[0].device) if rows is None else rows

        def copied(tensor: Tensor) -> Tensor:
            if columns is None:
                return functional.pad(tensor[:, :, : self.filled], (0, 0, 0, room))
            heads, width = tensor.shape[1], tensor.shape[3]
            out = tensor.new_zeros(len(columns), heads, columns.shape[1] + room, width)
            out[:, :, : columns.shape[1]] = tensor[owners[:, None], :, columns].transpose(1, 2)
            return out

        filled = self.filled if columns is None else columns.shape[1]
        return KeyValues([copied(k) for k in self.keys], [copied(v) for v in self.values], filled)

    def rows(self, index: Tensor) -> KeyValues:
        """Batch rows ``index``."""
        keys, values = [k[index] for k in self.keys], [v[index] for v in self.values]
        return KeyValues(keys, values, self.filled)


def stacked_weights(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Per projection and norm one tensor over layers ``[layers, …]``, from Hugging Face names."""
    return {
        name: torch.stack([state[f"model.layers.{i}.{name}.weight"] for i in range(layers)])
        for name in (*PROJECTIONS, *NORMS)
    }


def _rotary(
    theta: float, head_dim: int, positions: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    half = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    frequencies = 1.0 / (theta ** (half / head_dim))
    angles = positions.float()[:, None, :, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor, run: Pass, mask: Tensor | None) -> Tensor:
    """Attention output ``[B, L, heads · D]``; with a mask the query groups become rows."""
    batch, heads, rows, head_dim = query.shape
    if mask is None:
        if query.is_cuda and query.dtype is torch.float32:
            # No fused kernel there takes grouped heads in float32; the fallback is quadratic.
            key = key.repeat_interleave(heads // key.shape[1], dim=1)
            value = value.repeat_interleave(heads // value.shape[1], dim=1)
        out = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=True,
            enable_gqa=key.shape[1] != heads,
            dropout_p=run.dropout,
        )
    else:
        kv_heads = key.shape[1]
        folded = query.reshape(batch, kv_heads, heads // kv_heads * rows, head_dim)
        tiled = mask if mask.shape[2] == 1 else mask.repeat(1, 1, heads // kv_heads, 1)
        out = functional.scaled_dot_product_attention(
            folded, key, value, attn_mask=tiled, dropout_p=run.dropout
        )
        out = out.reshape(batch, heads, rows, head_dim)
    return out.transpose(1, 2).reshape(batch, rows, heads * head_dim)


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward pass attends to.

    ``mask`` is bool ``[B, 1, L or 1, past + L]`` (True attends) or None; without a mask attention
    is causal (no past). ``past`` is written in place.
    """

    positions: Tensor
    mask: Tensor | None = None
    past: KeyValues | None = None
    keep_cache: bool = False
    observe: Observer | None = None
    dropout: float = 0.0
    """Of attention weights; in training only."""
    stop_after_scores: bool = False
    """End the last layer once its attention was observed: its output is not needed."""
    needed: Tensor | None = None
    """int64 ``[B, r]``: columns whose output is read; the last layer computes no other. r may be 0
    where only the cache is wanted."""


def hidden_states(
    weights: DecoderWeights, shape: DecoderShape, x: Tensor, run: Pass
) -> tuple[Tensor, KeyValues]:
    """Run embedded tokens ``x`` [B, L, hidden] through every layer of ``weights``.

    Returns:
        the last layer's output before the final norm (of ``run.needed`` alone if given), and a
        cache of these L columns (empty unless ``run.keep_cache``). The caller moves
        ``past.filled`` on.
    """
    _check_window(shape, run.positions)
    x = x * shape.embedding_scale if shape.embedding_scale != 1.0 else x
    rotary, local = _rotations(shape, run.positions, x.dtype)
    cache = KeyValues([], [], x.shape[1])
    last = len(weights.layer[PROJECTIONS[0]]) - 1
    for index in range(last + 1):
        part = {name: tensors[index] for name, tensors in weights.layer.items()}
        normed = functional.rms_norm(x, (x.shape[-1],), part[NORMS[0]], shape.norm_epsilon)
        rotation = local if index in shape.local_layers else rotary
        query, key = _query_and_key(normed, part, shape, rotation)
        if run.stop_after_scores and index == last:
            if run.observe is not None:
                run.observe(index, query, key)
            return x, cache
        value = _projected(normed, part, 2, shape.kv_heads)
        if run.past is not None:
            key = _appended(run.past.keys[index], key, run.past.filled)
            value = _appended(run.past.values[index], value, run.past.filled)
        if run.keep_cache:
            cache.keys.append(key)
            cache.values.append(value)
        if run.observe is not None:
            run.observe(index, query, key)
        mask = run.mask
        if run.needed is not None and index == last:
            if run.needed.shape[1] == 0:
                return x[:, :0], cache
            query, x, mask = _narrowed(query, x, run, run.needed)
        x = _layer_output(x, _attend(query, key, value, run, mask), part, shape)
    return x, cache


def _rotations(
    shape: DecoderShape, positions: Tensor, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Cosines and sines of the layers that see everything, and of those with a window."""
    rotary = _rotary(shape.rope_theta, shape.head_dim, positions, dtype)
    if not shape.local_layers:
        return rotary, rotary
    return rotary, _rotary(shape.local_rope_theta, shape.head_dim, positions, dtype)


def _query_and_key(
    normed: Tensor, part: Mapping[str, Tensor], shape: DecoderShape, rotation: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Queries ``[B, heads, L, D]`` and keys ``[B, kv_heads, L, D]`` of a layer, rotated."""
    query = _projected(normed, part, 0, shape.heads)
    key = _projected(normed, part, 1, shape.kv_heads)
    query = _normed(query, part, EXTRA_NORMS[0], shape)
    key = _normed(key, part, EXTRA_NORMS[1], shape)
    return _rotated(query, *rotation), _rotated(key, *rotation)


def _layer_output(
    x: Tensor, attended: Tensor, part: Mapping[str, Tensor], shape: DecoderShape
) -> Tensor:
    """``x`` and what attention and MLP add to it."""
    added = functional.linear(attended, part[PROJECTIONS[3]])
    x = x + _normed(added, part, EXTRA_NORMS[2], shape)
    return x + _normed(_mlp(x, part, shape), part, EXTRA_NORMS[3], shape)


def _narrowed(query: Tensor, x: Tensor, run: Pass, needed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, inputs and mask of the columns ``needed`` [B, r] alone."""
    wide = needed[:, None, :, None]
    narrow = query.gather(2, wide.expand(-1, query.shape[1], -1, query.shape[3]))
    if run.mask is None:
        columns = torch.arange(x.shape[1], device=x.device)
        mask = (columns <= needed[:, :, None])[:, None]
    elif run.mask.shape[2] == 1:
        mask = run.mask
    else:
        mask = run.mask.gather(2, wide.expand(-1, -1, -1, run.mask.shape[3]))
    kept = x.gather(1, needed[:, :, None].expand(-1, -1, x.shape[2]))
    return narrow, kept, mask


def _mlp(x: Tensor, part: Mapping[str, Tensor], shape: DecoderShape) -> Tensor:
    normed = functional.rms_norm(x, (x.shape[-1],), part[NORMS[1]], shape.norm_epsilon)
    gate = functional.linear(normed, part[PROJECTIONS[4]])
    gate = functional.gelu(gate, approximate="tanh") if shape.gelu else functional.silu(gate)
    up = functional.linear(normed, part[PROJECTIONS[5]])
    return functional.linear(gate * up, part[PROJECTIONS[6]])


def _normed(x: Tensor, part: Mapping[str, Tensor], name: str, shape: DecoderShape) -> Tensor:
    """After a norm that only some families have."""
    if name not in part:
        return x
    return functional.rms_norm(x, (x.shape[-1],), part[name], shape.norm_epsilon)


def _check_window(shape: DecoderShape, positions: Tensor) -> None:
    """Raises UnsupportedModelError where a sliding window would hide something."""
    if shape.window is not None and int(positions.max()) >= shape.window:
        raise UnsupportedModelError(
            f"The batched decoder takes prompts of up to {shape.window} positions of a model with "
            f"sliding windows of that size, got {int(positions.max()) + 1}; use shorter contexts.",
        )


def _appended(buffer: Tensor, columns: Tensor, filled: int) -> Tensor:
    end = filled + columns.shape[2]
    buffer[:, :, filled:end] = columns
    return buffer[:, :, :end]


def _projected(normed: Tensor, part: Mapping[str, Tensor], which: int, heads: int) -> Tensor:
    """Queries, keys or values (``which`` of the projections) ``[B, heads, L, D]``."""
    out = functional.linear(normed, part[PROJECTIONS[which]], part.get(BIASES[which]))
    return out.view(*out.shape[:2], heads, -1).transpose(1, 2)


def logits_of(weights: DecoderWeights, shape: DecoderShape, x: Tensor) -> Tensor:
    """Vocabulary logits of hidden states ``[…, hidden]``."""
    normed = functional.rms_norm(x, (x.shape[-1],), weights.final_norm, shape.norm_epsilon)
    return functional.linear(normed, weights.output)
