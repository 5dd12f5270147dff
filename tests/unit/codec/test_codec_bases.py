"""Which transform basis belongs to a model: bundled ones by fingerprint, others by name."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from scout_core.codec.bases import basis_of, configured_basis
from scout_core.errors import ProfileError
from scout_core.modes import ModelFingerprint
from tests.support.synthetic_caches import synthetic_basis

PROFILE = files("scout_core.models") / "profiles" / "smollm2-135m-qa.json"
SMOLLM2_135M_QA = ModelFingerprint(
    json.loads(PROFILE.read_text(encoding="utf-8"))["cloud"]["fingerprint"]
)
LARGEST_ARTEFACT_BYTES = 16 * 1024 * 1024
OTHER = ModelFingerprint("0" * 64)


def test_the_default_cloud_model_has_a_basis_of_its_geometry() -> None:
    basis = basis_of(SMOLLM2_135M_QA)
    assert basis is not None
    assert basis.fingerprint == SMOLLM2_135M_QA
    assert (basis.geometry.layers, basis.geometry.kv_heads, basis.geometry.head_dim) == (30, 3, 64)
    assert bool((basis.deviations[:, :, 1:] <= basis.deviations[:, :, :-1]).all())


def test_other_weights_have_none() -> None:
    assert basis_of(OTHER) is None
    assert configured_basis("", OTHER) is None


def test_no_artefact_weighs_more_than_16_mebibytes() -> None:
    for entry in files("scout_core.models").iterdir():
        if entry.name.endswith(".safetensors"):
            assert len(entry.read_bytes()) <= LARGEST_ARTEFACT_BYTES


def test_a_setting_names_a_file_or_none(tmp_path: Path) -> None:
    path = tmp_path / "basis.safetensors"
    basis = replace(synthetic_basis(), fingerprint=OTHER)
    basis.save(path)
    found = configured_basis(str(path), OTHER)
    assert found is not None
    assert found.digest == basis.digest
    assert configured_basis("none", OTHER) is None
    with pytest.raises(ProfileError, match="another model"):
        configured_basis(str(path), ModelFingerprint("1" * 64))
