"""What the demo asks: the document, the questions with their answers, the link and the deadlines.

The document was written for this repository. Everything here is data; ``demo`` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from scout_core.modes import Mode


@dataclass(frozen=True, slots=True)
class GoldQuestion:
    """A question about the document and the words its answer must contain."""

    question: str
    gold: str


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One request: at which uplink rate, in which mode (None: auto), due when."""

    uplink_mbps: float
    mode: Mode | None
    retention: float | None
    deadline_s: float
    question: GoldQuestion


QUESTIONS: Final = (
    GoldQuestion("Who founded the harbour station at Carrow Point?", "Maud Ellery"),
    GoldQuestion("What did Irene Vasko receive as payment?", "salted herring"),
    GoldQuestion("How high is the radio mast?", "forty-two"),
    GoldQuestion("Who saved the ledgers?", "Tomas Brandt"),
    GoldQuestion("Who was the chief keeper in the storm of November 1987?", "Ruth Adeyemi"),
    GoldQuestion("What was the lamp's fuel until 1949?", "paraffin"),
    GoldQuestion("From which trawler does the bell come?", "Anneke"),
)

RATES_MBPS: Final = (100.0, 20.0, 3.0, 0.3)
AUTO_DEADLINE_S: Final = 4.0
FORCED_RATE_MBPS: Final = 100.0
FORCED_DEADLINE_S: Final = 5.0
SELECTIVE_RETENTION: Final = 0.5


def document() -> str:
    """The text the questions are about."""
    return files("scout_core.cli").joinpath("demo_document.txt").read_text(encoding="utf-8")


def steps() -> tuple[DemoStep, ...]:
    """Auto at each link rate, then every mode forced on the fastest link."""
    auto = [
        DemoStep(rate, None, None, AUTO_DEADLINE_S, QUESTIONS[index % len(QUESTIONS)])
        for index, rate in enumerate(RATES_MBPS)
    ]
    forced = [
        DemoStep(
            FORCED_RATE_MBPS,
            mode,
            SELECTIVE_RETENTION if mode.selects else None,
            FORCED_DEADLINE_S,
            QUESTIONS[(index + len(RATES_MBPS)) % len(QUESTIONS)],
        )
        for index, mode in enumerate(Mode)
    ]
    return (*auto, *forced)
