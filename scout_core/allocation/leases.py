"""Grants with a time limit, and the books that keep their sum within the capacity.

This module owns who may send how fast until when. It does not know why a rate was chosen. The one
rule: at every instant the rates of all unexpired grants of a group add up to at most its capacity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scout_core.allocation.offer import GroupId
from scout_core.allocation.problem import TOLERANCE
from scout_core.errors import LocalProtocolError
from scout_core.modes import SessionId


@dataclass(frozen=True, slots=True)
class Lease:
    """A rate in bytes a second that holds from the moment of granting until ``expires_at_s``."""

    rate_bytes_per_s: float
    expires_at_s: float


class GrantLedger:
    """All grants of one uplink group.

    Changes are applied as one batch, because a share can only be given when another has been taken.

    Args:
        group: for messages.
        capacity_bytes_per_s: the most that may be granted, ≥ 0.
    """

    def __init__(self, group: GroupId, capacity_bytes_per_s: float) -> None:
        self._group = group
        self._capacity = capacity_bytes_per_s
        self._leases: dict[SessionId, Lease] = {}

    @property
    def capacity_bytes_per_s(self) -> float:
        return self._capacity

    def granted_bytes_per_s(self, now: float) -> float:
        """Sum of the rates that hold at ``now``; a lease no longer holds at its expiry."""
        return sum(
            lease.rate_bytes_per_s for lease in self._leases.values() if lease.expires_at_s > now
        )

    def rate_bytes_per_s(self, session: SessionId, now: float) -> float:
        """What ``session`` may send at ``now``; 0 without a lease."""
        lease = self._leases.get(session)
        return lease.rate_bytes_per_s if lease and lease.expires_at_s > now else 0.0

    def lease(self, session: SessionId) -> Lease | None:
        """The lease of ``session``, expired or not."""
        return self._leases.get(session)

    def next_expiry_s(self) -> float | None:
        """When the first of all leases runs out; None without leases."""
        return min((lease.expires_at_s for lease in self._leases.values()), default=None)

    def apply(
        self, changes: Mapping[SessionId, Lease], now: float, *, capacity_bytes_per_s: float
    ) -> None:
        """Replaces the leases of the named sessions, all at once, under the given capacity.

        Raises:
            LocalProtocolError: the sum would exceed the capacity, a rate is negative or a lease
                would begin expired. Nothing is changed then.
        """
        for session, lease in changes.items():
            if not lease.rate_bytes_per_s >= 0 or lease.expires_at_s <= now:
                raise LocalProtocolError(
                    f"A lease for {session} needs a rate ≥ 0 and an end after {now} s, got {lease}."
                )
        merged = {**self._leases, **changes}
        total = sum(lease.rate_bytes_per_s for lease in merged.values() if lease.expires_at_s > now)
        if total > capacity_bytes_per_s * (1 + TOLERANCE):
            raise LocalProtocolError(
                f"Grants of group {self._group} would add up to {total:.0f} bytes/s, above its "
                f"capacity of {capacity_bytes_per_s:.0f}; shrink others in the same batch."
            )
        self._capacity = capacity_bytes_per_s
        self._leases = merged

    def release(self, sessions: Iterable[SessionId]) -> None:
        """Ends the leases of ``sessions``; unknown ones are ignored."""
        for session in sessions:
            self._leases.pop(session, None)

    def expire(self, now: float) -> tuple[SessionId, ...]:
        """Removes the leases that have run out and names their sessions."""
        ended = tuple(name for name, lease in self._leases.items() if lease.expires_at_s <= now)
        self.release(ended)
        return ended
