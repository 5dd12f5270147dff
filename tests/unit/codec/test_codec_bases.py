"""The transform bases that ship with Scout."""

from __future__ import annotations

from importlib.resources import files

from scout_core.codec.bases import basis_of
from scout_core.modes import ModelFingerprint

SMOLLM2_135M = ModelFingerprint("7d5428b4af32f30b0eb17f2d45bdda78d03186563ce044908b105d912bbbecbc")
LARGEST_ARTEFACT_BYTES = 16 * 1024 * 1024


def test_the_bundled_model_has_a_basis_of_its_geometry() -> None:
    basis = basis_of(SMOLLM2_135M)
    assert basis is not None
    assert basis.fingerprint == SMOLLM2_135M
    assert (basis.geometry.layers, basis.geometry.kv_heads, basis.geometry.head_dim) == (30, 3, 64)
    assert bool((basis.deviations[:, :, 1:] <= basis.deviations[:, :, :-1]).all())


def test_other_weights_have_none() -> None:
    assert basis_of(ModelFingerprint("0" * 64)) is None


def test_no_artefact_weighs_more_than_16_mebibytes() -> None:
    for entry in files("scout_core.models").iterdir():
        if entry.name.endswith(".safetensors"):
            assert len(entry.read_bytes()) <= LARGEST_ARTEFACT_BYTES
