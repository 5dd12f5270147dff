"""Which transform bases ship with Scout, found by the fingerprint of the model they belong to.

Owns the lookup, by name too, as settings have it; an artefact says in its header whose it is. A
model of other weights gets none, and its caches go by the codecs that need no calibration.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from safetensors import safe_open

from scout_core.codec.transform_basis import TransformBasis
from scout_core.errors import ProfileError
from scout_core.modes import ModelFingerprint

PATTERN: Final = "transform-*.safetensors"
NO_BASIS: Final = "none"
PLAIN_GROUPS: Final = "plain groups"


def configured_basis(reference: str, fingerprint: ModelFingerprint) -> TransformBasis | None:
    """The basis that a setting names for the model with this fingerprint.

    Args:
        reference: a file; ``none``; or empty: the bundled one, if there is one.

    Raises:
        ProfileError: no such file, damaged, or calibrated for another model.
    """
    if reference == NO_BASIS:
        return None
    if not reference:
        return basis_of(fingerprint)
    basis = TransformBasis.load(Path(reference))
    if basis.fingerprint != fingerprint:
        raise ProfileError(
            f"Transform basis {Path(reference).name} was calibrated for another model; calibrate "
            "one for this model, or set transform to none.",
            expected=basis.fingerprint,
            got=fingerprint,
        )
    return basis


def coding_identity(basis: TransformBasis | None) -> str:
    """What two measurements of coded KV must have in common: basis and levels, or plain groups."""
    if basis is None:
        return PLAIN_GROUPS
    return f"{basis.digest} at {basis.int4_level} and {basis.graded_level}"


def basis_of(fingerprint: ModelFingerprint) -> TransformBasis | None:
    """The bundled basis of the model with this fingerprint, or None.

    Raises:
        ProfileError: the artefact is damaged.
    """
    path = _paths().get(fingerprint)
    return None if path is None else _loaded(path)


@cache
def _paths() -> dict[str, Path]:
    folder = Path(str(files("scout_core.models")))
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(PATTERN)):
        with safe_open(path, framework="pt") as file:
            found[(file.metadata() or {}).get("fingerprint", "")] = path
    return found


@cache
def _loaded(path: Path) -> TransformBasis:
    return TransformBasis.load(path)
