"""The KV cache of one sequence: storage, original positions, cheap forks.

Owns the memory and who may append to it. It does not know models: ``forward_pass`` shows one cache
to one forward pass. Not thread-safe: all torch work of a process runs in one thread.

Forks share storage. A cache may append in place only while it ends where the storage's used part
ends; otherwise it moves to storage of its own first. Stored positions are therefore never
overwritten, and a view of them stays valid for as long as someone holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scout_core.geometry import KvGeometry

SLACK_POSITIONS = 256
"""Room left behind the cache for a question and its answer, so that decoding copies nothing."""
GROWTH_DIVISOR = 4
"""Storage grows by a quarter: appending n positions copies O(n), at most 25 % stays unused."""


@dataclass(slots=True)
class KvStorage:
    """Memory for ``capacity`` positions, of which the first ``used`` hold somebody's KV."""

    tensor: torch.Tensor
    used: int = 0

    @classmethod
    def allocate(
        cls, geometry: KvGeometry, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> KvStorage:
        return cls(torch.empty(geometry.shape(capacity), dtype=dtype, device=device))

    @property
    def capacity(self) -> int:
        return self.tensor.shape[3]


class KvCache:
    """KV of one sequence in ``[layers, 2, kv_heads, positions, head_dim]``.

    Keys are stored as the model caches them, that is after RoPE at their *original* position.
    Stored positions may have gaps (evicted or never computed); ``next_position`` is where the
    sequence goes on, whatever is stored.
    """

    def __init__(
        self,
        geometry: KvGeometry,
        dtype: torch.dtype,
        device: torch.device,
        capacity_positions: int = 0,
    ) -> None:
        self.geometry = geometry
        self.dtype = dtype
        self.device = device
        self._storage = KvStorage.allocate(geometry, capacity_positions, dtype, device)
        self._positions = torch.empty(0, dtype=torch.int64)
        self._next_position = 0

    @property
    def length(self) -> int:
        """Stored positions."""
        return self._positions.shape[0]

    @property
    def next_position(self) -> int:
        """Original position of the token that comes next."""
        return self._next_position

    @property
    def positions(self) -> torch.Tensor:
        """int64 ``[length]`` on the CPU: original positions, ascending."""
        return self._positions

    @property
    def nbytes(self) -> int:
        """Bytes of the storage behind this cache, room to grow included; forks share them."""
        return self._storage.tensor.nbytes

    def fork(self) -> KvCache:
        """A second cache with the same content; copies nothing until both have grown."""
        twin = KvCache(self.geometry, self.dtype, self.device)
        twin._storage = self._storage
        twin._positions = self._positions
        twin._next_position = self._next_position
        return twin

    def tensor(self, start: int, stop: int) -> torch.Tensor:
        """View of stored entries ``start..stop``: ``[layers, 2, kv_heads, stop-start, head_dim]``.

        Without gaps, the index of an entry is its original position.

        Raises:
            IndexError: outside the stored entries.
        """
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"KV entries {start}..{stop} of {self.length} stored.")
        return self._storage.tensor[:, :, :, start:stop]

    def reserve(self, count: int) -> None:
        """Makes the storage writable for ``count`` more positions; their content is undefined."""
        needed = self.length + count
        if self._storage.used == self.length and self._storage.capacity >= needed:
            return
        capacity = needed + max(SLACK_POSITIONS, needed // GROWTH_DIVISOR)
        grown = KvStorage.allocate(self.geometry, capacity, self.dtype, self.device)
        grown.tensor[:, :, :, : self.length] = self._storage.tensor[:, :, :, : self.length]
        grown.used = self.length
        self._storage = grown

    def reserved(self, count: int) -> torch.Tensor:
        """Writable view of the next ``count`` positions; call ``reserve`` first."""
        return self._storage.tensor[:, :, :, self.length : self.length + count]

    def through(self, layer: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values ``[1, kv_heads, length + count, head_dim]``, reserved ones included."""
        stop = self.length + count
        entry = self._storage.tensor[layer]
        return entry[0, None, :, :stop], entry[1, None, :, :stop]

    def commit(self, positions: torch.Tensor, next_position: int) -> None:
        """Makes the reserved entries part of the cache.

        Args:
            positions: int64 ``[count]`` original positions, ascending, beyond the stored ones.
            next_position: where the sequence goes on.
        """
        self._positions = torch.cat([self._positions, positions])
        self._storage.used = self.length
        self._next_position = next_position

    def gather(self, entries: torch.Tensor) -> KvCache:
        """A cache of its own with only these stored entries (int64 indices, ascending)."""
        kept = KvCache(self.geometry, self.dtype, self.device)
        count = entries.shape[0]
        kept.reserve(count)
        kept.reserved(count).copy_(self._storage.tensor.index_select(3, entries.to(self.device)))
        kept.commit(self._positions[entries], self._next_position)
        return kept
