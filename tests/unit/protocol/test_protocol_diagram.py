"""The README draws the tables that the code runs on."""

from __future__ import annotations

from pathlib import Path

import scout_core.protocol
from scout_core.protocol.diagram import cloud_diagram, edge_diagram

README = Path(scout_core.protocol.__file__).with_name("README.md").read_text(encoding="utf-8")


def test_readme_shows_the_edge_machine_as_it_is() -> None:
    assert edge_diagram() in README


def test_readme_shows_the_cloud_machine_as_it_is() -> None:
    assert cloud_diagram() in README


def test_diagram_names_the_way_of_an_undisturbed_session() -> None:
    lines = edge_diagram().splitlines()
    for line in (
        "    IDLE --> OPENING: Start",
        "    OPENING --> STREAMING: Accepted",
        "    STREAMING --> ANSWERING: FinishPulled",
        "    ANSWERING --> COMPLETE: AnswerDone",
        "    COMPLETE --> [*]",
    ):
        assert line in lines
