"""Rate traces on disk: CSV files with the columns ``t_s,mbps``.

This module owns the format and its checks. ``t_s`` counts seconds from the start of the trace and
increases strictly; a sample holds until the next one. A looping trace holds its last sample for the
median distance of two samples and then starts again, so that gaps in a log do not stretch its end.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from statistics import median

from scout_core.errors import SettingsError
from scout_core.testbed.schedule import RateSchedule

HEADER = "t_s,mbps"


def load_trace(path: Path, *, loop: bool = True) -> RateSchedule:
    """Read a trace.

    Args:
        path: the CSV file, UTF-8.
        loop: whether it starts again after its end; else the last rate stays for ever.

    Raises:
        SettingsError: the file is missing, or a line is not as described; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read the trace {path}: {error}.") from error
    if not lines or lines[0].strip() != HEADER:
        found = lines[0].strip() if lines else ""
        raise SettingsError(f"{path}:1: expected the header '{HEADER}', found '{found[:80]}'.")
    starts: list[float] = []
    rates: list[float] = []
    for number, line in enumerate(lines[1:], start=2):
        start_s, mbps = _parse(path, number, line)
        if not starts and start_s != 0:
            raise SettingsError(f"{path}:{number}: a trace starts at t_s = 0, found {start_s:g}.")
        if starts and start_s <= starts[-1]:
            raise SettingsError(
                f"{path}:{number}: t_s must increase, found {start_s:g} after {starts[-1]:g}."
            )
        starts.append(start_s)
        rates.append(mbps)
    if not any(rates):
        raise SettingsError(f"{path}: a trace needs at least one sample above 0 Mbit/s.")
    if not loop or len(starts) == 1:
        return RateSchedule(tuple(starts), tuple(rates))
    spacing_s = median(later - earlier for earlier, later in pairwise(starts))
    return RateSchedule(tuple(starts), tuple(rates), starts[-1] + spacing_s)


def save_trace(schedule: RateSchedule, path: Path) -> None:
    """Write the samples of a schedule, so that ``load_trace`` gives them back.

    Whether it loops is not part of a trace, and a period is kept only if the last span has the
    median length.
    """
    samples = zip(schedule.starts_s, schedule.rates_mbps, strict=True)
    rows = (f"{start_s!r},{mbps!r}" for start_s, mbps in samples)
    path.write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")


def _parse(path: Path, number: int, line: str) -> tuple[float, float]:
    fields = line.split(",")
    if len(fields) != 2:
        raise SettingsError(
            f"{path}:{number}: expected two fields 't_s,mbps', found '{line[:80]}'."
        )
    try:
        start_s, mbps = float(fields[0]), float(fields[1])
    except ValueError as error:
        raise SettingsError(f"{path}:{number}: not a number in '{line[:80]}'.") from error
    if not math.isfinite(start_s) or start_s < 0 or not math.isfinite(mbps) or mbps < 0:
        raise SettingsError(
            f"{path}:{number}: t_s and mbps must be finite and ≥ 0, found '{line[:80]}'."
        )
    return start_s, mbps
