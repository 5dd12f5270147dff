"""The wheel carries every package, the generated code and the data, and it imports alone."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.programs import run_program

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
FOLDERS = ("scout_core", "edge_agent", "cloud_server", "proto")
PYTHON = (sys.executable, "-W", "error::DeprecationWarning")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, without a network: the environment's own setuptools is the back end."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copy(ROOT / name, source / name)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", source, "--wheel-dir", target]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    result = run_program([*command, *options])
    assert result.returncode == 0, result.stderr
    (built,) = target.glob("scout_kv-*.whl")
    return built


def _expected(folder: Path) -> set[str]:
    """What the wheel must hold of a folder: modules, type markers and stubs, documents, data."""
    shipped = {".py", ".pyi", ".typed", ".md", ".json", ".safetensors", ".txt", ".csv"}
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in shipped and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("folder", ["scout_core", "edge_agent", "cloud_server", "proto/gen/scout"])
def test_wheel_holds_the_whole_package(folder: str, wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    assert _expected(ROOT / folder) - held == set()


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "scout",
        "scout_core",
        "edge_agent",
        "cloud_server",
    }


def test_generated_code_imports_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from scout.v1 import control_pb2_grpc, inference_pb2, transport_pb2_grpc\n"
        "import scout_core\n"
        "print(inference_pb2.__file__, scout_core.__file__)"
    )
    result = run_program([*PYTHON, "-I", "-c", code, tmp_path])
    assert result.returncode == 0, result.stderr
    assert [str(tmp_path) in word for word in result.stdout.split()] == [True, True]


def test_wheel_declares_the_three_programs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        declared = archive.read(name).decode()
    for program in ("scout = ", "scout-edge = ", "scout-cloud = "):
        assert program in declared
