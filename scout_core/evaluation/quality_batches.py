"""Which questions share a batch, and how many tokens one may hold.

Owns the cutting by padded size. Rows of one length together waste nothing on padding; how many
tokens fit is memory of the device over the cache's bytes a token. Knows no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CACHE_BYTES = {"cpu": 1 << 30, "cuda": 6 << 30}
"""Cache held by one batch of decodes, by device type; activations are a fraction of it."""
PASS_TOKENS = {"cpu": 2_500, "cuda": 60_000}
"""Tokens of one prefill pass. A CPU's matrix product is at full speed from some 500 rows on, and
a GPU's from some 10,000; what is more only takes memory."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Padded tokens of one prefill pass, of one slice of questions, and of one batch of decodes."""

    pass_tokens: int
    slice_tokens: int
    decode_tokens: int


def budget_for(device_type: str, cache_bytes_per_token: int) -> Budget:
    """The budget of a device for a model whose cache takes so many bytes a token.

    Args:
        device_type: ``cpu`` or ``cuda``.
    """
    decode = max(1, CACHE_BYTES[device_type] // cache_bytes_per_token)
    # A slice's prefixes are held beside its decodes. Small slices: a study stops and keeps what it
    # found between two of them, and ten questions have some 400 decodes to fill a batch.
    return Budget(min(PASS_TOKENS[device_type], decode), max(1, decode // 12), decode)


def by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices in slices whose padded size stays within ``token_budget`` tokens."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    slices: list[list[int]] = []
    current: list[int] = []
    for index in order:
        if current and lengths[index] * (len(current) + 1) > token_budget:
            slices.append(current)
            current = []
        current.append(index)
    if current:
        slices.append(current)
    return slices
