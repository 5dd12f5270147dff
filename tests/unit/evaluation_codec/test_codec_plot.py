"""The rate-distortion plot is drawn from rows alone, exact codecs and several lengths included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scout_core.evaluation.codec_plot import draw
from scout_core.evaluation.codec_study import QualityRow

ROW = QualityRow("a_1", "a", "ours", "tiny", 240, 2, 96, 4.0, 4.0, 0.01, 0.9, None)
PNG = b"\x89PNG\r\n\x1a\n"


def test_a_picture_is_written_for_curves_and_exact_codecs(tmp_path: Path) -> None:
    rows = [
        ROW,
        replace(ROW, codec="a_2", bits_per_element=2.0, kl=0.1),
        replace(ROW, codec="b", family="b", origin="peer", bits_per_element=16.0, kl=0.0),
    ]
    path = draw(rows, tmp_path / "new")
    assert path.read_bytes().startswith(PNG)


def test_every_length_has_a_panel_of_its_own(tmp_path: Path) -> None:
    one = draw([ROW], tmp_path / "one").stat().st_size
    two = draw([ROW, replace(ROW, context_tokens=2048)], tmp_path / "two").stat().st_size
    assert two > one
