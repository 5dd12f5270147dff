"""What the figures of a records file depend on, beside the questions: its identity.

Owns the list, for every command that keeps records. Two runs with equal identities may go on from
each other's file.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from scout_core.codec.bases import coding_identity
from scout_core.evaluation.quality_models import Pair
from scout_core.evaluation.quality_records import Identity
from scout_core.models.profile import HeadWeightsRecord
from scout_core.selection.selectors import WIDEST_RUN


def identity_of(pair: Pair, scout_heads: HeadWeightsRecord | None, seed: int) -> Identity:
    """The identity of what a pair measures.

    Args:
        scout_heads: calibrated ones that the scout selects with, if it has any.
        seed: of the plan.
    """
    return {
        "cloud": pair.cloud.fingerprint,
        "scout": pair.scout.fingerprint,
        "compute type": pair.cloud.compute_dtype,
        "coding of KV": coding_identity(pair.basis),
        "widest run": WIDEST_RUN,
        "profile's heads": _digest(None if pair.heads is None else pair.heads.to_dict()),
        "profile's scout heads": _digest(scout_heads and scout_heads.model_dump(mode="json")),
        "seed": seed,
    }


def _digest(weights: dict[str, Any] | None) -> str | None:
    if weights is None:
        return None
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()[:16]
