"""Base weights of the bundled models: find the package's GGUF file, keep its conversion.

It does not know how a GGUF file is converted: the engine passes that in, since only the engine
may use transformers.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final

from scout_core.errors import UnknownModelError
from scout_core.models.cache_folder import cache_folder, filled_folder
from scout_core.models.digests import file_digest
from scout_core.models.registry import BasePackage, BundledModel

CONVERTER_VERSION: Final = 1
"""Goes up whenever the converted files would differ, so that old ones are not used."""
ADAPTERS: Final = Path(__file__).parent / "adapters"
PROFILES: Final = Path(__file__).parent / "profiles"


def base_file(package: BasePackage) -> Path:
    """The package's GGUF file. The package is located, never imported: it needs things we don't.

    Raises:
        UnknownModelError: not installed, or installed without the file.
    """
    return _located(package, package)


def converted_folder(model: BundledModel, convert: Callable[[Path, Path], None]) -> Path:
    """Folder with config, safetensors and tokenizer of the model's base weights.

    Made on first use, in the user's cache; safe when two daemons start at once.

    Args:
        convert: called with (GGUF file, empty folder); writes the model into the folder.

    Raises:
        UnknownModelError: the base package, or one of its parts, is missing.
    """
    base = model.base
    pieces = [_located(base, part) for part in base.parts or (base,)]
    digest = file_digest(pieces[0])
    if base.parts:
        digest = hashlib.sha256("".join(map(file_digest, pieces)).encode()).hexdigest()
    folder = cache_folder() / "models" / f"{base.distribution}-{digest[:16]}-v{CONVERTER_VERSION}"
    if base.parts:
        return filled_folder(folder, lambda draft: _convert_joined(base, pieces, convert, draft))
    return filled_folder(folder, lambda draft: convert(pieces[0], draft))


def _convert_joined(
    base: BasePackage, pieces: list[Path], convert: Callable[[Path, Path], None], draft: Path
) -> None:
    """Converts the file that the pieces make; it exists only meanwhile."""
    with tempfile.TemporaryDirectory(dir=draft.parent) as folder:
        whole = Path(folder) / base.file
        with whole.open("wb") as target:
            for piece in pieces:
                with piece.open("rb") as source:
                    shutil.copyfileobj(source, target)
        convert(whole, draft)


def _located(wanted: BasePackage, holder: BasePackage) -> Path:
    """The holder's file, where ``wanted`` is what the user has to install to get it."""
    terms = f" ({wanted.terms})" if wanted.terms else ""
    try:
        located = metadata.distribution(holder.distribution).locate_file(holder.file)
    except metadata.PackageNotFoundError as error:
        raise UnknownModelError(
            f"The base weights are in the package {holder.distribution}, which is not installed: "
            f"run '{wanted.install_command}'{terms}.",
            package=holder.distribution,
        ) from error
    path = Path(str(located))
    if not path.is_file():
        raise UnknownModelError(
            f"The package {holder.distribution} has no file {holder.file}; "
            f"install it again: '{wanted.install_command} --force-reinstall'.",
            package=holder.distribution,
        )
    return path


def adapter_file(model: BundledModel) -> Path | None:
    """The model's adapter, or None for the base weights as they are.

    Raises:
        UnknownModelError: the registry names a file that this installation lacks.
    """
    return None if model.adapter is None else _shipped(model, model.adapter)


def readout_file(model: BundledModel) -> Path | None:
    """The trained scout's readout, or None for a model that scores by its heads.

    Raises:
        UnknownModelError: the registry names a file that this installation lacks.
    """
    return None if model.readout is None else _shipped(model, model.readout)


def lexical_readout_file() -> Path:
    """The readout over words alone that was trained beside the bundled scout: its baseline."""
    return ADAPTERS / "lexical-readout.safetensors"


def _shipped(model: BundledModel, name: str) -> Path:
    path = ADAPTERS / name
    if not path.is_file():
        raise UnknownModelError(
            f"This installation lacks the file {name} of bundled:{model.name}; "
            "install scout-kv again.",
            model=model.name,
        )
    return path


def profile_file(model: BundledModel) -> Path | None:
    """The model's shipped profile, or None when nothing has been calibrated."""
    return None if model.profile is None else PROFILES / model.profile
