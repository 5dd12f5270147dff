"""Traces and generators: what is read is what was written, and errors name file and line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from scout_core.errors import SettingsError
from scout_core.testbed import generators
from scout_core.testbed.generators import (
    MARKOV_STATES_MBPS,
    MARKOV_TRANSITIONS,
    RadioClass,
    fading,
)
from scout_core.testbed.schedule import RateSchedule
from scout_core.testbed.traces import load_trace, save_trace


def write(folder: Path, text: str) -> Path:
    path = folder / "uplink.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_sample_holds_until_the_next(tmp_path: Path) -> None:
    schedule = load_trace(write(tmp_path, "t_s,mbps\n0,8\n1,0\n4,2.5\n"), loop=False)
    assert [schedule.rate_mbps(t) for t in (0.0, 0.9, 1.0, 3.9, 4.0, 99.0)] == [
        8,
        8,
        0,
        0,
        2.5,
        2.5,
    ]


def test_looping_trace_holds_its_last_sample_for_the_median_spacing(tmp_path: Path) -> None:
    schedule = load_trace(write(tmp_path, "t_s,mbps\n0,8\n1,4\n2,4\n9,1\n"))
    assert schedule.period_s == 10.0
    assert schedule.rate_mbps(9.9) == 1.0
    assert schedule.rate_mbps(10.0) == 8.0


def test_single_sample_is_a_constant_link(tmp_path: Path) -> None:
    assert load_trace(write(tmp_path, "t_s,mbps\n0,8\n")) == RateSchedule.constant(8.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"uplink.csv:1: expected the header"),
        ("time,rate\n0,1\n", r"uplink.csv:1: expected the header 't_s,mbps', found 'time,rate'"),
        ("t_s,mbps\n", r"uplink.csv: a trace needs"),
        ("t_s,mbps\n0,0\n1,0\n", r"uplink.csv: a trace needs"),
        ("t_s,mbps\n1,5\n", r"uplink.csv:2: a trace starts at t_s = 0"),
        ("t_s,mbps\n0,1\n2,1\n2,1\n", r"uplink.csv:4: t_s must increase"),
        ("t_s,mbps\n0,1\n1,fast\n", r"uplink.csv:3: not a number"),
        ("t_s,mbps\n0,1\n1,-2\n", r"uplink.csv:3: .* ≥ 0"),
        ("t_s,mbps\n0,1\n1,nan\n", r"uplink.csv:3: .*finite"),
        ("t_s,mbps\n0,1\n\n1,2\n", r"uplink.csv:3: expected two fields"),
        ("t_s,mbps\n0,1,2\n", r"uplink.csv:2: expected two fields"),
    ],
)
def test_malformed_trace_names_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load_trace(write(tmp_path, text))


def test_unreadable_trace_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Cannot read the trace"):
        load_trace(tmp_path / "absent.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="Cannot read the trace"):
        load_trace(binary)


def test_saved_trace_loads_as_the_same_schedule(tmp_path: Path) -> None:
    schedule = generators.radio(RadioClass.LTE, 60.0, seed=3)
    path = tmp_path / "lte.csv"
    save_trace(schedule, path)
    assert load_trace(path) == schedule


def test_steps_hold_the_last_rate_unless_looped() -> None:
    once = generators.steps((100.0, 0.3), 2.0)
    assert [once.rate_mbps(t) for t in (1.0, 3.0, 99.0)] == [100.0, 0.3, 0.3]
    assert generators.steps((100.0, 0.3), 2.0, loop=True).rate_mbps(5.0) == 100.0


def test_sine_has_its_mean_and_swing() -> None:
    schedule = generators.sine(10.0, 8.0, 20.0)
    assert schedule.mean_mbps(0.0, 60.0) == pytest.approx(10.0)
    assert max(schedule.rates_mbps) == pytest.approx(18.0, rel=1e-3)
    assert schedule.rate_mbps(5.0) > 17.0
    with pytest.raises(SettingsError, match="swing"):
        generators.sine(1.0, 2.0, 10.0)


def test_outages_are_dead_at_the_end_of_each_interval() -> None:
    schedule = generators.outages(10.0, every_s=5.0, outage_s=1.0)
    assert [schedule.rate_mbps(t) for t in (3.9, 4.1, 5.1, 9.5)] == [10.0, 0.0, 10.0, 0.0]
    with pytest.raises(SettingsError, match="outage"):
        generators.outages(10.0, every_s=1.0, outage_s=1.0)


def test_markov_rows_are_distributions_and_all_states_equally_likely() -> None:
    for row in MARKOV_TRANSITIONS:
        assert sum(row) == pytest.approx(1.0)
    # Doubly stochastic: the uniform distribution is stationary.
    for column in zip(*MARKOV_TRANSITIONS, strict=True):
        assert sum(column) == pytest.approx(1.0)


def test_markov_walk_moves_to_neighbours_only_and_visits_all() -> None:
    states = generators.markov(3000.0, seed=11).rates_mbps
    assert set(states) == set(MARKOV_STATES_MBPS)
    ranks = [MARKOV_STATES_MBPS.index(state) for state in states]
    assert max(abs(b - a) for a, b in pairwise(ranks)) == 1
    stays = sum(a == b for a, b in pairwise(ranks)) / len(ranks)
    assert stays == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("radio_class", list(RadioClass))
def test_radio_fades_around_its_median(radio_class: RadioClass) -> None:
    shape = fading(radio_class)
    rates = sorted(generators.radio(radio_class, 20_000.0, seed=5).rates_mbps)
    dead = sum(rate == 0 for rate in rates) / len(rates)
    assert dead == pytest.approx(shape.dead_fraction, abs=0.015)
    alive = [rate for rate in rates if rate > 0]
    assert alive[len(alive) // 2] == pytest.approx(shape.median_mbps, rel=0.1)


def markov_minute(seed: int) -> RateSchedule:
    return generators.markov(60.0, seed)


def lte_minute(seed: int) -> RateSchedule:
    return generators.radio(RadioClass.LTE, 60.0, seed)


def test_seeded_generators_repeat_and_differ_by_seed() -> None:
    for make in (markov_minute, lte_minute):
        assert make(1) == make(1)
        assert make(1) != make(2)
    with pytest.raises(SettingsError, match="at least"):
        generators.markov(0.1, 1)
