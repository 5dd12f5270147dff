"""How many times more bits a peer takes than the best of ours at its KL divergence.

Owns the comparison of rows that were measured together. Between two neighbouring rates of a family
of ours the logarithm of the bits is taken to be linear in that of the divergence; beyond the ends
nothing is guessed: there only a codec of ours that diverges no more counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scout_core.evaluation.codec_study import QualityRow


def with_advantages(rows: Sequence[QualityRow]) -> tuple[QualityRow, ...]:
    """The rows, those of peers with ``times_ours``."""
    return tuple(
        replace(row, times_ours=_times_ours(row, rows)) if row.origin == "peer" else row
        for row in rows
    )


def _times_ours(peer: QualityRow, rows: Sequence[QualityRow]) -> float | None:
    ours = [
        row for row in rows if row.origin == "ours" and row.context_tokens == peer.context_tokens
    ]
    bits = [row.bits_per_element for row in ours if row.kl <= peer.kl]
    if peer.kl > 0:
        for family in {row.family for row in ours}:
            curve = sorted(
                (row.kl, row.bits_per_element)
                for row in ours
                if row.family == family and row.kl > 0
            )
            if curve and curve[0][0] <= peer.kl <= curve[-1][0]:
                divergences, rates = np.log(np.array(curve)).T
                bits.append(float(np.exp(np.interp(np.log(peer.kl), divergences, rates))))
    return peer.bits_per_element / min(bits) if bits else None
