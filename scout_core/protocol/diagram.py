"""Draws a transition table as a mermaid state diagram; the README holds its output.

    python -m scout_core.protocol.diagram

prints both diagrams. Ignored events and events that leave the state as it is are left out.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import Any

from scout_core.protocol import cloud_states, edge_states
from scout_core.protocol.transitions import Transitions


def state_diagram(transitions: Transitions[Any], initial: Enum) -> str:
    """Mermaid text; states and edges come in the order of the table."""
    lines = ["stateDiagram-v2", f"    [*] --> {initial.name}"]
    for state, row in transitions.items():
        labels: dict[str, list[str]] = {}
        for event_type, following in row.items():
            for target in following:
                if target is not state:
                    labels.setdefault(target.name, []).append(event_type.__name__)
        lines += [f"    {state.name} --> {name}: {', '.join(ev)}" for name, ev in labels.items()]
        if not labels:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines)


def edge_diagram() -> str:
    """The edge's machine."""
    return state_diagram(edge_states.TRANSITIONS, edge_states.EdgeState.IDLE)


def cloud_diagram() -> str:
    """The cloud's machine."""
    return state_diagram(cloud_states.TRANSITIONS, cloud_states.CloudState.IDLE)


if __name__ == "__main__":
    sys.stdout.write(f"{edge_diagram()}\n\n{cloud_diagram()}\n")
