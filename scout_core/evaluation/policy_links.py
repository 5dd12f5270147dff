"""The links of the policy study: recorded traces by technology class, or made ones.

Owns where a trace's class comes from and which links there are without recordings. It does not know
requests or policies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scout_core.errors import SettingsError
from scout_core.testbed.generators import RadioClass, markov, radio
from scout_core.testbed.schedule import RateSchedule
from scout_core.testbed.traces import load_trace

INDEX_FILE: Final = "index.json"
UNCLASSIFIED: Final = "unclassified"
MADE_LINKS_PER_CLASS: Final = 12
MADE_DURATION_S: Final = 300.0
MADE_NAMES: Final = {
    RadioClass.THREE_G: "3G (made)",
    RadioClass.LTE: "LTE (made)",
    RadioClass.FIVE_G: "5G (made)",
}
MARKOV_CLASS: Final = "Markov"
MARKOV_LINKS: Final = 60
TRACES_VARIABLE: Final = "SCOUT_TRACES"


@dataclass(frozen=True, slots=True)
class Link:
    """One uplink.

    Attributes:
        name: the trace's file name, or the seed of a made one.
        tech_class: technology class.
        schedule: its rate; loops.
    """

    name: str
    tech_class: str
    schedule: RateSchedule

    @property
    def duration_s(self) -> float:
        """Length of the recording, seconds."""
        return self.schedule.period_s or self.schedule.starts_s[-1]


def recorded_links(directory: Path) -> tuple[Link, ...]:
    """Every ``*.csv`` of a folder; classes from ``index.json`` there or one folder above.

    The index is a list of objects with ``file`` (path ending in the file's name) and
    ``tech_class``; files it does not name, or all without one, are ``unclassified``.

    Raises:
        SettingsError: no such folder, no trace in it, or a file that is not a trace.
    """
    files = sorted(directory.glob("*.csv"))
    if not files:
        raise SettingsError(
            f"No *.csv trace in {directory}; give a folder of traces (t_s,mbps) with --traces, "
            f"or leave both --traces and {TRACES_VARIABLE} out to use made links."
        )
    classes = _classes(directory)
    return tuple(
        Link(file.stem, classes.get(file.name, UNCLASSIFIED), load_trace(file)) for file in files
    )


def _classes(directory: Path) -> dict[str, str]:
    for folder in (directory, directory.parent):
        index = folder / INDEX_FILE
        if index.is_file():
            try:
                rows: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
                return {Path(row["file"]).name: str(row["tech_class"]) for row in rows}
            except (ValueError, KeyError, TypeError) as error:
                raise SettingsError(
                    f"{index} is not a list of objects with 'file' and 'tech_class': {error!r}."
                ) from error
    return {}


def made_links(seed: int = 0) -> tuple[Link, ...]:
    """Radio-like fading of three classes, for a machine without recordings."""
    return tuple(
        Link(f"{kind.value}-{number}", name, radio(kind, MADE_DURATION_S, seed * 1000 + number))
        for kind, name in MADE_NAMES.items()
        for number in range(MADE_LINKS_PER_CLASS)
    )


def markov_links(seed: int = 0) -> tuple[Link, ...]:
    """Walks on the six-state chain (``testbed.generators`` documents states and matrix)."""
    return tuple(
        Link(f"markov-{number}", MARKOV_CLASS, markov(MADE_DURATION_S, seed * 1000 + number))
        for number in range(MARKOV_LINKS)
    )


def classes_of(links: Iterable[Link]) -> tuple[str, ...]:
    """Technology classes, sorted."""
    return tuple(sorted({link.tech_class for link in links}))
