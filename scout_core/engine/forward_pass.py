"""One forward pass of a decoder over a KvCache: the bridge to transformers' cache interface."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from scout_core.engine.attention import CALL_KEYWORD, AttentionObserver, AttentionPass
from scout_core.engine.kv_cache import KvCache


class _StoredLayer(DynamicLayer):
    """One layer of a KvCache as transformers wants to see it, for one pass of ``count`` tokens."""

    def __init__(self, cache: KvCache, layer: int, count: int) -> None:
        super().__init__()
        self._cache = cache
        self._count = count
        self.keys, self.values = cache.through(layer, count)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes into the reserved entries; returns everything attended to."""
        if self.keys is None or self.values is None:
            raise AssertionError("a stored layer is reset only by its end of life")
        self.keys[:, :, -self._count :] = key_states
        self.values[:, :, -self._count :] = value_states
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._cache.length


@dataclass(frozen=True, slots=True)
class Stack:
    """The decoder stack (without output head) of a loaded model."""

    module: Any
    """Called with token ids; it is transformers' model class, whose types are not usable here."""
    device: torch.device
    dtype: torch.dtype
    cache_keyword: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache_keyword", _cache_keyword(self.module))

    def forward(
        self,
        cache: KvCache,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        next_position: int,
        observer: AttentionObserver | None = None,
    ) -> torch.Tensor:
        """Runs tokens at their positions and appends their KV; a failed pass changes nothing.

        Args:
            tokens: int64 ``[count]``.
            positions: int64 ``[count]``, ascending, beyond the stored ones.
            next_position: where the sequence goes on afterwards.

        Returns:
            Hidden states ``[count, hidden]``.
        """
        count = tokens.shape[0]
        cache.reserve(count)
        layers: list[Any] = [
            _StoredLayer(cache, layer, count) for layer in range(cache.geometry.layers)
        ]
        rows = positions.to(self.device)
        columns = torch.cat([cache.positions.to(self.device), rows])
        output = self.module(
            input_ids=tokens.to(self.device)[None],
            position_ids=rows[None],
            use_cache=True,
            **{
                self.cache_keyword: Cache(layers=layers),
                CALL_KEYWORD: AttentionPass(rows, columns, self.dtype, observer),
            },
        )
        cache.commit(positions, next_position)
        return output.last_hidden_state[0]


def _cache_keyword(module: Any) -> str:
    """What this release of transformers calls the cache: ``cache``, before 5.24 differently."""
    names = inspect.signature(module.forward).parameters
    return "cache" if "cache" in names else "past_key_values"
