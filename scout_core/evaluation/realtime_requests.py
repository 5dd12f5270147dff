"""The requests of the real-time check: contexts, deadlines and arrivals from a seed.

Owns what is asked and when. It knows neither daemons nor links. Contexts are made-up records, each
used once, so that the cloud never holds one before its request; answers are not judged here.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

DEADLINES_S: Final = (1.0, 2.0, 5.0)
SENTENCES: Final = (8, 30)
"""About 170 and 600 tokens of a tokenizer like SmolLM2's."""
GAP_S: Final = (4.0, 6.0)
"""Between arrivals, uniform: requests seldom overlap."""
FIRST_ARRIVAL_S: Final = 1.0
_PLACES: Final = ("harbour", "mill", "station", "library", "bridge", "market", "tower", "school")
_MAKERS: Final = ("Alba", "Borg", "Castell", "Dunmore", "Eriksen", "Fournier", "Grimaldi", "Hale")


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """One request, ``arrival_s`` after the trace has begun."""

    arrival_s: float
    deadline_s: float
    context: str
    question: str


def timed_requests(count: int, seed: str) -> tuple[TimedRequest, ...]:
    """``count`` requests in order of arrival; equal seeds give equal requests."""
    random = Random(seed)  # noqa: S311 - a workload, not a secret
    arrival_s = FIRST_ARRIVAL_S
    requests: list[TimedRequest] = []
    for number in range(count):
        sentences = [_sentence(random) for _ in range(random.choice(SENTENCES))]
        requests.append(
            TimedRequest(
                arrival_s=arrival_s,
                deadline_s=random.choice(DEADLINES_S),
                context=f"Record {seed} {number}. " + " ".join(sentences),
                question=f"Who built the {random.choice(_PLACES)}?",
            )
        )
        arrival_s += random.uniform(*GAP_S)
    return tuple(requests)


def _sentence(random: Random) -> str:
    place, maker = random.choice(_PLACES), random.choice(_MAKERS)
    return f"The {place} of district {random.randrange(90)} was built by {maker} for the town."
