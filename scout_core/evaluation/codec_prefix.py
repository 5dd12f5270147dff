"""A batch of prefilled contexts through a codec: what is read from its payloads, in place.

Owns the way between the batched decoder's padded caches and a contender's single one. Knows neither
which contenders there are nor what is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from scout_core.evaluation.codec_coded import Contender, ExactCache
from scout_core.evaluation.quality_answers import Prefix


def cache_rows(prefix: Prefix) -> Iterator[torch.Tensor]:
    """The cache of every row, bf16 ``[layers, 2, kv_heads, columns, head_dim]`` on the CPU."""
    for row, length in enumerate(prefix.lengths.tolist()):
        layers = [
            torch.stack((key[row, :, :length], value[row, :, :length]))
            for key, value in zip(prefix.cache.keys, prefix.cache.values, strict=True)
        ]
        yield torch.stack(layers).bfloat16().cpu()


def code_in_place(
    prefix: Prefix, head: int, caches: Sequence[ExactCache], contender: Contender
) -> list[float]:
    """Puts what a contender makes of each row's columns behind the head in their place.

    Args:
        prefix: a row per cache; changed.
        head: columns of the template's head, which stay as they are.
        caches: what those columns hold, and where they are from.

    Returns:
        Payload bytes of each row.
    """
    sizes: list[float] = []
    for row, exact in enumerate(caches):
        coded = contender.code(exact)
        sizes.append(coded.payload_bytes)
        columns = slice(head, head + exact.kv.shape[3])
        layers = zip(prefix.cache.keys, prefix.cache.values, strict=True)
        for layer, (key, value) in enumerate(layers):
            key[row, :, columns] = coded.decoded[layer, 0].to(key)
            value[row, :, columns] = coded.decoded[layer, 1].to(value)
    return sizes
