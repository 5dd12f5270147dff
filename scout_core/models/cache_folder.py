"""Scout's folder in the user's cache: where it is, and how processes fill it without a clash."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/scout`` (XDG base directories), by default ``~/.cache/scout``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "scout"


def filled_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder, filled once: by this process, or by another one that we wait for.

    Args:
        folder: the final place; it appears complete or not at all.
        fill: writes the content into the folder it is given. When it raises, nothing is left.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir():
            return folder
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            fill(draft)
            draft.rename(folder)
        finally:
            if draft.is_dir():
                shutil.rmtree(draft)
    return folder


@contextmanager
def _exclusive(lock_file: Path) -> Generator[None]:
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
