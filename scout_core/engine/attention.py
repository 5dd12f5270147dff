"""Attention as Scout runs it inside transformers: causal by original position, observable.

Owns the attention function registered with transformers and the mask. transformers builds no mask
for a function it does not know, so the mask is made here, from the positions that the cache
really holds: evicted and gapped caches need no special case. What one forward pass needs travels
with the call (``attention_pass``); there is no global state.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from scout_core.errors import UnsupportedModelError

ATTENTION_NAME: Final = "scout_positional"
CALL_KEYWORD: Final = "attention_pass"


class AttentionObserver(Protocol):
    """Sees queries and keys of each layer; must not change them."""

    def observe(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        scaling: float,
        mask: torch.Tensor | None,
    ) -> None:
        """Query ``[heads, rows, head_dim]`` and key ``[kv_heads, columns, head_dim]`` after RoPE;
        mask float ``[rows, columns]``, 0 or -inf, None when every row sees every column."""
        ...


class AttentionPass:
    """What the layers of one forward pass share: positions, masks, and perhaps an observer.

    Args:
        row_positions: int64 ``[rows]``, original positions of the new tokens.
        column_positions: int64 ``[columns]``, of everything attended to, new tokens last.
    """

    def __init__(
        self,
        row_positions: torch.Tensor,
        column_positions: torch.Tensor,
        dtype: torch.dtype,
        observer: AttentionObserver | None = None,
    ) -> None:
        self.observer = observer
        self._rows = row_positions
        self._columns = column_positions
        self._dtype = dtype
        self._masks: dict[int | None, torch.Tensor | None] = {}

    def plainly_causal(self, window: int | None) -> bool:
        """Whether the mask is the square lower triangle, which kernels know how to do."""
        rows, columns = self._rows.shape[0], self._columns.shape[0]
        return rows == columns and rows > 1 and not self._window_bites(window)

    def mask(self, window: int | None) -> torch.Tensor | None:
        """Float ``[rows, columns]``: 0 where a row sees a column, -inf elsewhere; None if all 0."""
        if window not in self._masks:
            self._masks[window] = self._build(window)
        return self._masks[window]

    def _build(self, window: int | None) -> torch.Tensor | None:
        if self._rows.shape[0] == 1 and not self._window_bites(window):
            return None
        distance = self._rows[:, None] - self._columns[None, :]
        hidden = distance < 0
        if window is not None:
            hidden |= distance >= window
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=hidden.device)
        return mask.masked_fill_(hidden, float("-inf"))

    def _window_bites(self, window: int | None) -> bool:
        if window is None:
            return False
        return int(self._rows[-1]) - int(self._columns[0]) >= window


def positional_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: object,
) -> tuple[torch.Tensor, None]:
    """The function that the models call in every layer.

    Args:
        query: ``[1, heads, rows, head_dim]``.
        key, value: ``[1, kv_heads, columns, head_dim]``, cached entries first.
        attention_mask: always None; see the module's docstring.
        options: ``scaling``, ``sliding_window`` (absent or None: no window), ``attention_pass``.

    Returns:
        ``[1, rows, heads, head_dim]`` and None (no weights are kept).
    """
    current = options.get(CALL_KEYWORD)
    scaling = options.get("scaling")
    window = options.get("sliding_window")
    if (
        attention_mask is not None
        or not isinstance(current, AttentionPass)
        or not isinstance(scaling, float)
        or not (window is None or isinstance(window, int))
    ):
        raise UnsupportedModelError(
            f"{type(module).__name__} calls attention in a way Scout does not know; "
            "use a Llama, Qwen2, Qwen3 or Mistral model.",
        )
    causal = current.plainly_causal(window)
    if current.observer is not None:
        layer = int(getattr(module, "layer_idx"))  # noqa: B009 - nn.Module types attributes as modules
        current.observer.observe(layer, query[0], key[0], scaling, current.mask(window))
    output = _attend(query, key, value, scaling, None if causal else current.mask(window), causal)
    return output.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    mask: torch.Tensor | None,
    causal: bool,
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and mask is not None and query.device.type == "cuda":
        # With grouped heads *and* a mask, CUDA has no fused kernel and would hold all scores.
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
        groups = 1
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal,
        scale=scaling,
        enable_gqa=groups > 1,
    )


AttentionInterface.register(ATTENTION_NAME, positional_attention)
