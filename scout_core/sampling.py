"""How an answer is decoded: the options and their limits. Pure: knows no model and no wire."""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.errors import SamplingError

MAX_TEMPERATURE = 2.0
DEFAULT_MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Options of one answer.

    Args:
        temperature: softmax temperature in [0, 2]; 0 is greedy.
        top_p: nucleus mass in (0, 1].
        seed: equal seeds give equal answers; ignored when greedy.
        max_tokens: most tokens to decode, at least 1.

    Raises:
        SamplingError: a value is out of its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = DEFAULT_MAX_TOKENS

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= MAX_TEMPERATURE:
            raise SamplingError(f"temperature must be in [0, 2], got {self.temperature}.")
        if not 0.0 < self.top_p <= 1.0:
            raise SamplingError(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.max_tokens < 1:
            raise SamplingError(f"max_tokens must be at least 1, got {self.max_tokens}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0
