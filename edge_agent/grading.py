"""How finely each position of a request's KV is worth sending, once the question has been read.

Owns the grades of one request. Their weights are what the replica's own reading of the question
gives: one pass of the question's rows over the held cache, the same that scores positions for
kv_select. Nobody waits for it without gain: ``wait_s`` is what the choice of a coding weighs
against the bytes that grades save (``scout_core.control.coding``), and while the cache is still
being computed there are none. A question's grades serve that question alone; the next one about
the same context sends its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from edge_agent.host import EdgeHost
from edge_agent.planning import Question
from scout_core.codec.transform_importance import grades_of
from scout_core.codec.transform_runs import Grades
from scout_core.control.cost import Stage


@dataclass(slots=True)
class Grading:
    """The grades of one request's positions.

    Args:
        host: its replica reads the question.
        question: what is asked, about which stored context.
    """

    host: EdgeHost
    question: Question
    _of_prefix: Grades | None = field(default=None, init=False)
    _is_refused: bool = field(default=False, init=False)

    @property
    def is_settled(self) -> bool:
        """Whether there are grades, or it is known that there will be none."""
        return self._of_prefix is not None or self._is_refused

    @property
    def wait_s(self) -> float | None:
        """Expected seconds until there are grades; None: there will be none in time."""
        if self._of_prefix is not None:
            return 0.0
        replica = self.host.replica
        if self._is_refused or replica is None or self.question.stored.cache is None:
            return None
        tail = replica.prompt.tail_tokens(self.question.parameters.question)
        return self.host.costs.predict(Stage.EDGE_PREFILL, len(tail))

    def note(self, importance: torch.Tensor | None, kept: Sequence[int] | None = None) -> None:
        """Takes what the question's reading says of the context.

        Args:
            importance: float32 ``[context tokens]``; None: it says nothing, and all stay alike.
            kept: the context's tokens that are sent, ascending; None: all. Their grades are
                relative to each other.
        """
        if importance is None:
            self._is_refused = True
            return
        head = len(self.host.tokenizing.prompt.head_tokens)
        weights = importance.numpy()
        chosen = np.arange(weights.size) if kept is None else np.asarray(kept)
        of_prefix = np.zeros(head + weights.size, dtype=np.int8)
        of_prefix[head + chosen] = grades_of(weights[chosen])
        self._of_prefix = of_prefix

    def of(self, positions: Sequence[int]) -> Grades | None:
        """Of these positions of the prefix; None: there are none."""
        return None if self._of_prefix is None else self._of_prefix[np.asarray(positions)]
