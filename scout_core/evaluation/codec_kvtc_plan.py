"""How the KVTC-like peer spends its bits: runs of principal components, and a dynamic programme.

Owns the choice; knows no cache. Each position's components, most varying first, are cut into runs
that share a 16-bit shift and a 16-bit scale and are quantised to 2, 4 or 8 bits; a single component
may be sent as a 16-bit number, or not at all (arXiv 2511.01815: runs of 1, 16, 64, 256 and types of
different widths, chosen by dynamic programming for the least squared error within a budget). The
paper's budget is a constraint of the programme; here it is priced, and the price is bisected, which
finds the same plans wherever the error falls convexly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SIDE_BITS: Final = 32
"""Shift and scale of a run at one position."""
PRICE_STEPS: Final = 20
LOWEST_PRICE: Final = -60.0
HIGHEST_PRICE: Final = 60.0
"""Binary logarithms of squared error a bit: beyond what any cache holds."""
SINGLE_BITS: Final = 16
"""A component by itself is its own shift: a bf16, no codes."""
_BF16_ERROR: Final = 2.0**-18 / 3
"""Mean squared rounding error of a bf16, relative: uniform up to half of 2⁻⁸."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """Components of a stream that are quantised together at each position."""

    start: int
    size: int
    bits: int
    """Of each code; ``SINGLE_BITS`` for a run of one."""

    @property
    def position_bits(self) -> int:
        """What it costs at each position, before entropy coding."""
        return SINGLE_BITS if self.size == 1 else self.size * self.bits + SIDE_BITS


Plan = tuple[tuple[Run, ...], ...]
"""Per stream; components in no run are not sent."""

_KINDS: Final = (
    (1, 0),
    (1, SINGLE_BITS),
    *((size, bits) for size in (16, 64, 256) for bits in (2, 4, 8)),
)


def planned(deviations: Floats, bits_per_element: float) -> Plan:
    """The plan for streams ``[streams, width]`` of deviations, each descending.

    It takes at most ``bits_per_element`` on average, over all streams together.
    """
    budget = bits_per_element * deviations.size
    cheap, dear = LOWEST_PRICE, HIGHEST_PRICE
    best: Plan = tuple(() for _ in deviations)
    for _ in range(PRICE_STEPS):
        middle = (cheap + dear) / 2
        plan = _at_price(deviations, 2.0**middle)
        if sum(run.position_bits for runs in plan for run in runs) <= budget:
            best, dear = plan, middle
        else:
            cheap = middle
    return best


def _errors(deviations: Floats, size: int, bits: int) -> Floats:
    """Expected squared error of a run from each start ``[streams, width - size + 1]``.

    The range of ``size`` normal variables is about 2 √(2 ln size) deviations, and never less than
    what the first alone takes.
    """
    sums = np.pad(np.cumsum(deviations**2, axis=1), ((0, 0), (1, 0)))
    energy = np.maximum(sums[:, size:] - sums[:, :-size], 0)
    if bits == 0:
        return energy
    if size == 1:
        return energy * _BF16_ERROR
    typical = np.sqrt(energy / size) * np.sqrt(2 * np.log(size))
    spans = 2 * np.maximum(typical, deviations[:, : energy.shape[1]])
    return size * (spans / (2**bits - 1)) ** 2 / 12


def _at_price(deviations: Floats, price: float) -> Plan:
    """The plan with the least error plus price times bits."""
    streams, width = deviations.shape
    kinds = [(size, bits) for size, bits in _KINDS if size <= width]
    costs: list[Floats] = []
    for size, bits in kinds:
        spent = Run(0, size, bits).position_bits if bits else 0
        costs.append(_errors(deviations, size, bits) + price * spent)
    least = np.zeros((width + 1, streams))
    chosen = np.zeros((width + 1, streams), dtype=np.int64)
    for end in range(1, width + 1):
        reachable = [index for index, (size, _) in enumerate(kinds) if size <= end]
        totals = np.stack(
            [least[end - kinds[i][0]] + costs[i][:, end - kinds[i][0]] for i in reachable]
        )
        choice = totals.argmin(axis=0)
        least[end] = totals[choice, np.arange(streams)]
        chosen[end] = np.array(reachable)[choice]
    return tuple(_traced(chosen[:, stream], kinds) for stream in range(streams))


def _traced(chosen: NDArray[np.int64], kinds: list[tuple[int, int]]) -> tuple[Run, ...]:
    runs: list[Run] = []
    end = chosen.size - 1
    while end > 0:
        size, bits = kinds[int(chosen[end])]
        end -= size
        if bits:
            runs.append(Run(end, size, bits))
    return tuple(reversed(runs))
