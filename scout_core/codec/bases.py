"""Which transform bases ship with Scout, found by the fingerprint of the model they belong to.

Owns the lookup; an artefact says in its header whose it is. A model of other weights gets none,
and its caches go by the codecs that need no calibration.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from safetensors import safe_open

from scout_core.codec.transform_basis import TransformBasis
from scout_core.modes import ModelFingerprint

PATTERN: Final = "transform-*.safetensors"


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
