"""Calibration of a tiny model: in slices as in one go, and the level that stands in for int4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scout_core.engine.loading import load_model
from scout_core.engine.options import EngineOptions
from scout_core.evaluation.codec_calibration import Calibration, collect, fitted, new_calibration
from scout_core.evaluation.codec_contenders import named_codec, transformed
from scout_core.evaluation.codec_levels import CANDIDATES, INT4_SHARE, with_int4_level
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_study import quality_rows
from tests.support.tiny_models import save_tiny_model

HEAD = (5, 6, 7, 8)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> CacheProbe:
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    return CacheProbe(load_model(EngineOptions(str(folder)), lambda _stage, _fraction: None))


def texts(count: int) -> list[ProbeText]:
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randint(10, 300, (count, 70), generator=generator).tolist()
    return [ProbeText((*HEAD, *row[:60]), tuple(row[60:])) for row in drawn]


def collected(probe: CacheProbe, wanted: list[ProbeText]) -> Calibration:
    calibration = new_calibration(probe, len(HEAD))
    collect(calibration, probe, wanted, lambda _done, _total: None)
    return calibration


def test_slices_collect_what_one_go_does(probe: CacheProbe, tmp_path: Path) -> None:
    wanted = texts(4)
    whole = collected(probe, wanted)
    first = new_calibration(probe, len(HEAD))
    collect(first, probe, wanted, lambda _done, _total: None, lambda: first.done == 2)
    assert first.done == 2
    first.save(tmp_path / "state.safetensors")
    second = new_calibration(probe, len(HEAD))
    second.load(tmp_path / "state.safetensors")
    collect(second, probe, wanted, lambda _done, _total: None)
    assert fitted(second, probe).digest == fitted(whole, probe).digest


def test_the_heads_rows_are_measured_from_themselves(probe: CacheProbe) -> None:
    basis = fitted(collected(probe, texts(3)), probe)
    kv, _ = probe.prefilled((*HEAD, 20, 21))
    values = kv[:, 1, :, : len(HEAD)].float().permute(2, 0, 1, 3).reshape(len(HEAD), -1)
    assert torch.allclose(basis.sinks[1].reshape(len(HEAD), -1), values, atol=0.02)


def test_the_level_is_the_coarsest_that_diverges_by_a_share_of_int4(probe: CacheProbe) -> None:
    asked = texts(3)
    basis = with_int4_level(
        replace(fitted(collected(probe, texts(6)), probe), int4_level=0),
        probe,
        [asked],
        lambda _message: None,
    )
    compared = [named_codec("int4_groups"), *(transformed(basis, each) for each in CANDIDATES)]
    int4, *rows = quality_rows(probe, "", asked, compared, lambda _message: None)
    good = [
        level for level, row in zip(CANDIDATES, rows, strict=True) if row.kl <= INT4_SHARE * int4.kl
    ]
    assert 0 < len(good) < len(CANDIDATES)
    assert basis.int4_level == max(good)
