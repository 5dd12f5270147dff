"""How a table of states and events drives a machine. Both sessions run on this.

A table maps state → event type → the states that may follow:

- an event that is absent is *illegal*: ``LocalProtocolError`` if it is our own (the machine stays
  as it was), ``RemoteProtocolError`` if it is the peer's (the machine fails);
- ``()`` means the event may arrive late in that state and is *ignored*;
- anything else is *handled*, and the machine must end in one of the states named.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from scout_core.errors import LocalProtocolError, RemoteProtocolError

State = TypeVar("State", bound=Enum)

Transitions = Mapping[State, Mapping[type, tuple[State, ...]]]


class StateTracker(Generic[State]):
    """The present state of one machine, moved only along its table.

    Attributes:
        current: the state the machine is in; to be read, not set.
    """

    def __init__(
        self, transitions: Transitions[State], initial: State, local_events: frozenset[type]
    ) -> None:
        self._transitions = transitions
        self._local_events = local_events
        self.current = initial
        self._following = transitions[initial]
        self._next: tuple[State, ...] = ()

    def admit(self, event_type: type) -> bool:
        """Whether the event is to be handled; False: ignore it.

        Raises:
            LocalProtocolError, RemoteProtocolError: the table does not know the pair.
        """
        following = self._following.get(event_type)
        if following is None:
            message = f"{event_type.__name__} is not possible in state {self.current.name}."
            if event_type in self._local_events:
                raise LocalProtocolError(message, state=self.current.name)
            raise RemoteProtocolError(message, state=self.current.name)
        self._next = following
        return bool(following)

    def enter(self, state: State) -> None:
        """Moves on.

        Raises:
            LocalProtocolError: the table does not lead there with the admitted event; a defect
                of the machine.
        """
        if state not in self._next:
            raise LocalProtocolError(
                f"The table has no way from {self.current.name} to {state.name} here."
            )
        self._move(state)

    def fail(self, state: State) -> None:
        """Moves to the failure state, which the peer's errors reach from everywhere."""
        self._move(state)

    def _move(self, state: State) -> None:
        self.current = state
        self._following = self._transitions[state]  # kept: an enum's hash is a call of its own
