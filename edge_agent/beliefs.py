"""What the agent believes the cloud holds of each context.

Beliefs save bytes and may be wrong (the cloud forgets): a wrong one costs one more round trip,
never an answer, because the cloud says UNKNOWN_CONTEXT and the tokens are sent then. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from scout_core.control.offers import CloudContext
from scout_core.modes import ContextHash

MAX_BELIEFS: Final = 4_096
BELIEF_TTL_S: Final = 600.0


class CloudBeliefs:
    """Bounded, forgetful map from context to what the cloud had of it last."""

    def __init__(self) -> None:
        self._beliefs: OrderedDict[ContextHash, tuple[CloudContext, float]] = OrderedDict()

    def about(self, key: ContextHash, now: float) -> CloudContext:
        state, noted_s = self._beliefs.get(key, (CloudContext.ABSENT, now))
        return state if now - noted_s <= BELIEF_TTL_S else CloudContext.ABSENT

    def note(self, key: ContextHash, state: CloudContext, now: float) -> None:
        self._beliefs[key] = (state, now)
        self._beliefs.move_to_end(key)
        while len(self._beliefs) > MAX_BELIEFS:
            self._beliefs.popitem(last=False)
