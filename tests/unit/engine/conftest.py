"""Tiny models, one folder per family for the whole run, and a cache folder nobody else uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scout_core.engine import Engine
from tests.support.tiny_models import FAMILIES, save_tiny_model, tiny_engine

FolderOf = Callable[[str], Path]


@pytest.fixture(scope="session", autouse=True)
def private_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = save_tiny_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return folder


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def family_folder(family: str, folder_of: FolderOf) -> Path:
    return folder_of(family)


@pytest.fixture(scope="session")
def family_engine(family_folder: Path) -> Engine:
    return tiny_engine(family_folder)


@pytest.fixture(scope="session")
def llama_folder(folder_of: FolderOf) -> Path:
    return folder_of("llama")


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> Engine:
    return tiny_engine(llama_folder)


@pytest.fixture(scope="session")
def llama_bf16(llama_folder: Path) -> Engine:
    return tiny_engine(llama_folder, compute_dtype="bfloat16")
