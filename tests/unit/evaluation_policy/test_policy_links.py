"""Where links and their classes come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scout_core.errors import SettingsError
from scout_core.evaluation.policy_links import (
    MADE_NAMES,
    classes_of,
    made_links,
    markov_links,
    recorded_links,
)
from scout_core.testbed.generators import MARKOV_STATES_MBPS


def write_trace(folder: Path, name: str) -> None:
    (folder / name).write_text("t_s,mbps\n0,1.0\n1,2.0\n", encoding="utf-8")


def test_classes_come_from_the_index_beside_or_above_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    folder.mkdir()
    write_trace(folder, "a.csv")
    write_trace(folder, "b.csv")
    index = [{"file": "dev/a.csv", "tech_class": "LTE"}]
    (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
    links = recorded_links(folder)
    assert [(link.name, link.tech_class) for link in links] == [
        ("a", "LTE"),
        ("b", "unclassified"),
    ]


def test_a_folder_without_traces_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--traces"):
        recorded_links(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", '[{"file": "a.csv"}]'])
def test_a_malformed_index_is_named(tmp_path: Path, text: str) -> None:
    write_trace(tmp_path, "a.csv")
    (tmp_path / "index.json").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"index\.json is not a list"):
        recorded_links(tmp_path)


def test_made_links_need_no_recording_and_repeat_with_their_seed() -> None:
    assert set(classes_of(made_links())) == set(MADE_NAMES.values())
    assert made_links(3) == made_links(3)
    assert made_links(3) != made_links(4)


def test_markov_links_visit_the_documented_states_only() -> None:
    for link in markov_links()[:5]:
        assert set(link.schedule.rates_mbps) <= set(MARKOV_STATES_MBPS)
