"""Peers of the codec study that need no calibration: plain groups, KIVI-like, CacheGen-like.

Owns their arithmetic. They are ours, written from the papers' descriptions, and idealised in their
favour: the CacheGen-like one is charged the order-0 entropy of what it codes, without the loss of a
real coder, and its tables with and without. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.evaluation.codec_coded import Code, Coded, Contender, ExactCache

GROUP: Final = 32
RESIDUAL_POSITIONS: Final = 32
"""KIVI keeps the last positions in full precision (arXiv 2402.02750 §3.3, R = 32 here)."""
ANCHOR_POSITIONS: Final = 10
"""CacheGen codes tokens as differences to the first of each ten (arXiv 2310.07240 §5.2)."""
CACHEGEN_LAYER_THIRDS: Final = (0.5, 1.0, 1.5)
"""Its bins grow over the thirds of the layers (§5.2); scaled together to set the rate."""
CACHEGEN_BINS: Final = (0.25, 0.5, 1.0)
TABLE_ENTRY_BYTES: Final = 1.5
"""Charged for each symbol that occurs in a table that travels with the payload."""


def peers() -> Iterator[Contender]:
    """The peers, each at several rates."""
    for bits in (8, 4):
        yield Contender(f"plain_int{bits}", "plain_int", "peer", _plain(bits))
    for bits in (4, 2):
        yield Contender(f"kivi_like_int{bits}", "kivi_like", "peer", _kivi_like(bits))
    for counted in (True, False):
        family = "cachegen_like" if counted else "cachegen_like_tables_free"
        for bins in CACHEGEN_BINS:
            name = f"cachegen_like_{bins:g}" + ("" if counted else "_tables_free")
            yield Contender(name, family, "peer", _cachegen_like(bins, counted=counted))


def _plain(bits: int) -> Code:
    """Groups of 32 along the channels, 16-bit offset and step: what most stacks ship."""

    def code(cache: ExactCache) -> Coded:
        kv = cache.kv
        decoded, size = _grouped(kv.float(), 4, bits)
        return Coded(decoded.to(torch.bfloat16), size)

    return code


def _kivi_like(bits: int) -> Code:
    """Keys per channel, values per token, the last positions exact."""

    def code(cache: ExactCache) -> Coded:
        kv = cache.kv
        cut = max(0, kv.shape[3] - RESIDUAL_POSITIONS)
        decoded = kv.clone()
        size = 2.0 * kv[:, :, :, cut:].numel()
        if cut:
            keys, key_bytes = _grouped(kv[:, 0, :, :cut].float(), 2, bits)
            values, value_bytes = _grouped(kv[:, 1, :, :cut].float(), 3, bits)
            decoded[:, 0, :, :cut] = keys.to(torch.bfloat16)
            decoded[:, 1, :, :cut] = values.to(torch.bfloat16)
            size += key_bytes + value_bytes
        return Coded(decoded, size)

    return code


def _grouped(elements: torch.Tensor, axis: int, bits: int) -> tuple[torch.Tensor, float]:
    """Asymmetric quantisation in groups along an axis; what comes back, and its bytes."""
    moved = elements.movedim(axis, -1)
    length = moved.shape[-1]
    padding = -length % GROUP
    padded = torch.cat((moved, moved[..., -1:].expand(*moved.shape[:-1], padding)), dim=-1)
    groups = padded.reshape(*padded.shape[:-1], -1, GROUP)
    lowest = groups.amin(dim=-1, keepdim=True).bfloat16().float()
    highest = groups.amax(dim=-1, keepdim=True)
    step = ((highest - lowest) / (2**bits - 1)).bfloat16().float()
    step = torch.where(step > 0, step, torch.ones_like(step))
    codes = ((groups - lowest) / step).round().clamp(0, 2**bits - 1)
    decoded = (lowest + codes * step).reshape(padded.shape)[..., :length].movedim(-1, axis)
    return decoded, elements.numel() * bits / 8 + 4 * lowest.numel()


def _cachegen_like(bins: float, *, counted: bool) -> Code:
    """Anchors at 8 bits, differences in bins by layer, order-0 entropy per layer and channel."""

    def code(cache: ExactCache) -> Coded:
        kv = cache.kv
        layers, _, _, positions, _ = kv.shape
        elements = kv.float()
        anchors = torch.arange(positions) // ANCHOR_POSITIONS * ANCHOR_POSITIONS
        is_anchor = torch.arange(positions) == anchors
        anchor_rows, anchor_bytes = _grouped(elements[:, :, :, is_anchor], 4, 8)
        base = anchor_rows[:, :, :, anchors // ANCHOR_POSITIONS]
        thirds = torch.arange(layers) * len(CACHEGEN_LAYER_THIRDS) // layers
        widths = torch.tensor(CACHEGEN_LAYER_THIRDS)[thirds] * bins
        spread = elements.std(dim=(3, 4), keepdim=True).clamp_min(1e-6)
        steps = spread * widths[:, None, None, None, None]
        symbols = ((elements - base) / steps).round()
        decoded = base + symbols * steps
        decoded[:, :, :, is_anchor] = anchor_rows
        coded = symbols[:, :, :, ~is_anchor].movedim(3, -1).reshape(-1, int((~is_anchor).sum()))
        bits, entries = _entropy(coded.numpy().astype(np.int64))
        size = anchor_bytes + bits / 8 + 4 * spread.numel()
        size += TABLE_ENTRY_BYTES * entries if counted else 0
        return Coded(decoded.to(torch.bfloat16), size)

    return code


def _entropy(rows: NDArray[np.int64]) -> tuple[float, int]:
    """Order-0 entropy in bits of each row under its own table, summed; and table entries."""
    bits, entries = 0.0, 0
    for row in rows:
        _, counts = np.unique(row, return_counts=True)
        bits -= float((counts * np.log2(counts / row.size)).sum())
        entries += counts.size
    return bits, entries
