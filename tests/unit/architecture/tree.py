"""Finds the project's files for the architecture rules.

Owns: where the tree is and which of its files are ours (not generated, not a tool's output).
Knows nothing of the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
PACKAGES: Final = ("scout_core", "edge_agent", "cloud_server")
FOLDERS: Final = (*PACKAGES, "proto", "deploy", "tests")
OUTPUTS: Final = frozenset({"build", "dist", "out"})
GENERATED: Final = "proto/gen/"
TEXT_SUFFIXES: Final = frozenset(
    [
        ".cfg",
        ".conf",
        ".csv",
        ".json",
        ".md",
        ".proto",
        ".py",
        ".pyi",
        ".service",
        ".sh",
        ".toml",
        ".txt",
        ".yaml",
        ".yml",
    ]
)
TEXT_NAMES: Final = frozenset({"Makefile", "LICENSE", "run", ".gitignore", ".dockerignore"})


def files(*folders: str) -> Iterator[str]:
    """Paths relative to the root of all files below the folders, sorted."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[str]:
    """Our own Python modules below the folders."""
    return [
        path for path in files(*folders) if path.endswith(".py") and not path.startswith(GENERATED)
    ]


def text_files() -> list[str]:
    """Our own text: modules, documents, configurations, scripts, the top-level files."""
    top = [path.name for path in sorted(ROOT.iterdir()) if path.is_file()]
    every = [*top, *files(".ci"), *files(*FOLDERS)]
    return [
        path
        for path in every
        if not path.startswith(GENERATED)
        and (
            Path(path).suffix in TEXT_SUFFIXES
            or Path(path).name in TEXT_NAMES
            or Path(path).name.startswith("Dockerfile")
        )
    ]


def read(path: str) -> str:
    """The text of one of our files."""
    return (ROOT / path).read_text(encoding="utf-8")
