"""The tree obeys the architecture rules, and each rule catches a bad example."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tests.unit.architecture import rules, tree
from tests.unit.architecture.rules import Violation


def _check(rule: Callable[[str, str], list[Violation]], paths: Iterable[str]) -> None:
    found = [violation for path in paths for violation in rule(path, tree.read(path))]
    assert not found, "\n" + "\n".join(str(violation) for violation in found)


def test_imports_point_inward() -> None:
    _check(rules.import_violations, tree.python_files(*tree.PACKAGES))


def test_pure_rooms_use_no_global_random_source() -> None:
    pure = [f"scout_core/{room}" for room in sorted(rules.PURE_ROOMS)]
    _check(rules.randomness_violations, tree.python_files(*pure))


def test_shipped_modules_and_functions_stay_small() -> None:
    _check(rules.size_violations, tree.python_files(*tree.PACKAGES))


def test_test_modules_and_functions_stay_small() -> None:
    def sizes(path: str, source: str) -> list[Violation]:
        return rules.size_violations(path, source, count_parameters=False)

    _check(sizes, tree.python_files("tests"))


def test_every_module_says_what_it_owns() -> None:
    _check(rules.docstring_violations, tree.python_files(*tree.FOLDERS))


def test_every_suppression_has_a_reason() -> None:
    _check(rules.suppression_violations, tree.python_files(*tree.PACKAGES, "tests/support"))


def test_names_are_nouns_of_the_domain() -> None:
    found = [
        violation
        for path in (*tree.files(*tree.FOLDERS), *tree.text_files())
        for violation in rules.name_violations(path)
    ]
    assert not found, "\n" + "\n".join(str(violation) for violation in found)


def test_text_names_no_path_of_one_machine() -> None:
    _check(rules.machine_path_violations, tree.text_files())


def test_readmes_are_short() -> None:
    _check(rules.readme_violations, [p for p in tree.text_files() if p.endswith("README.md")])


def test_every_room_is_a_package() -> None:
    # The wheel takes regular packages alone: a folder without __init__.py would not be installed.
    missing = {
        folder
        for path in tree.python_files(*tree.PACKAGES)
        if not (tree.ROOT / (folder := path.rpartition("/")[0]) / "__init__.py").exists()
    }
    assert not missing


def test_scout_core_has_the_designed_rooms_only() -> None:
    rooms = {path.split("/")[1] for path in tree.files("scout_core") if path.count("/") > 1}
    assert rooms <= rules.RANKS.keys()


def test_the_tree_has_the_designed_folders_only() -> None:
    folders = {
        path.name for path in tree.ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"
    }
    extra = {name for name in folders - tree.OUTPUTS if not name.endswith(".egg-info")}
    assert extra <= set(tree.FOLDERS)


BAD_IMPORTS = [
    ("scout_core/control/policy.py", "import torch"),
    ("scout_core/protocol/session.py", "import time"),
    ("scout_core/protocol/session.py", "from time import monotonic"),
    ("scout_core/allocation/greedy.py", "def solve():\n    import asyncio"),
    ("scout_core/protocol/session.py", "from scout.v1 import types_pb2"),
    ("scout_core/modes.py", "from scout_core.engine import loader"),
    ("scout_core/codec/groups.py", "import grpc"),
    ("scout_core/cli/ask.py", "import grpc.aio"),
    ("scout_core/codec/groups.py", "from scout.v1.inference_pb2_grpc import InferenceServiceStub"),
    ("scout_core/selection/heads.py", "from transformers import AutoModel"),
    ("scout_core/control/policy.py", "from scout_core.engine.loader import load"),
    ("scout_core/control/policy.py", "from scout_core import engine"),
    ("scout_core/protocol/session.py", "from ..codec import groups"),
    ("scout_core/codec/groups.py", "from scout_core.selection.heads import scores"),
    ("scout_core/evaluation/study.py", "from scout_core.cli.main import main"),
    ("scout_core/rpc/server.py", "from cloud_server.app import serve"),
    ("edge_agent/app.py", "import cloud_server.settings"),
    ("edge_agent/app.py", "from scout_core.testbed import link"),
    ("cloud_server/app.py", "from scout_core.cli import main"),
    ("cloud_server/app.py", "from scout_core.evaluation.metrics import f1"),
    ("cloud_server/worker.py", "import transformers"),
    ("cloud_server/app.py", "from tests.support import fakes"),
]
GOOD_IMPORTS = [
    ("scout_core/control/policy.py", "from scout_core.modes import Mode\nimport numpy"),
    ("scout_core/engine/loader.py", "import transformers\nfrom scout_core.codec import groups"),
    ("scout_core/evaluation/training.py", "from transformers import AutoModel"),
    ("scout_core/protocol/session.py", "from .credit import Ledger"),
    ("scout_core/protocol/session.py", "from scout_core.protocol.credit import Ledger"),
    ("scout_core/cli/ask.py", "from scout.v1.inference_pb2_grpc import InferenceServiceStub"),
    ("edge_agent/app.py", "import grpc\nfrom edge_agent.settings import Settings"),
]


@pytest.mark.parametrize(("path", "source"), BAD_IMPORTS)
def test_a_forbidden_import_is_caught(path: str, source: str) -> None:
    assert len(rules.import_violations(path, source)) == 1


@pytest.mark.parametrize(("path", "source"), GOOD_IMPORTS)
def test_an_inward_import_is_allowed(path: str, source: str) -> None:
    assert rules.import_violations(path, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from random import choice",
        "from numpy.random import normal",
        "import numpy as np\nx = np.random.normal()",
    ],
)
def test_a_global_random_source_is_caught(source: str) -> None:
    assert rules.randomness_violations("scout_core/control/policy.py", source)


@pytest.mark.parametrize(
    "source",
    ["from random import Random", "import numpy as np\nrng = np.random.default_rng(7)"],
)
def test_a_seeded_generator_is_allowed(source: str) -> None:
    assert rules.randomness_violations("scout_core/control/policy.py", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n" * 601,
        "def long():\n" + "    x = 1\n" * 70,
        "async def long():\n" + "    x = 1\n" * 70,
        "def wide(a, b, c, d, e, f, g): ...",
        "class A:\n    def wide(self, a, b, c, *, d, e, f, g): ...",
    ],
)
def test_an_oversized_thing_is_caught(source: str) -> None:
    assert len(rules.size_violations("scout_core/codec/groups.py", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n" * 600,
        "def fits():\n" + "    x = 1\n" * 69,
        "class A:\n    def fits(self, a, b, c, d, e, f): ...",
        "@dataclass\nclass A:\n    a: int\n    b: int\n    c: int\n    d: int\n    e: int\n"
        "    f: int\n    g: int\n",
    ],
)
def test_a_thing_at_its_limit_is_allowed(source: str) -> None:
    assert rules.size_violations("scout_core/codec/groups.py", source) == []


def test_a_module_without_docstring_is_caught() -> None:
    assert rules.docstring_violations("edge_agent/app.py", "x = 1")
    assert not rules.docstring_violations("edge_agent/app.py", '"""Owns the app."""')


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("x = f()  # " + "noqa", False),
        ("x = f()  # " + "noqa: S603", False),
        ("x = f()  # " + "type: ignore", False),
        ("x = f()  # " + "pyright: ignore[reportPrivateUsage]", False),
        ("x = f()  # " + "noqa: S603 - the command is a constant", True),
        ("# grpc has no public name for it.\nx = f()  # " + "pyright: ignore[reportX]", True),
    ],
)
def test_a_suppression_without_reason_is_caught(source: str, allowed: bool) -> None:
    assert (rules.suppression_violations("edge_agent/app.py", source) == []) is allowed


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("edge_agent/utils.py", False),
        ("scout_core/codec/common/groups.py", False),
        ("cloud_server/session_manager.py", False),
        ("tests/support/test_helpers.py", False),
        ("scout_core/codec/groups.py", True),
        ("scout_core/commons_of_lords.py", True),
    ],
)
def test_a_name_that_says_nothing_is_caught(path: str, allowed: bool) -> None:
    assert (rules.name_violations(path) == []) is allowed


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("see /" + "work/scout/README.md", False),
        ("cache = '/" + "home/anna/.cache'", False),
        ("COPY . /" + "root/scout", False),
        ("the home/office split", True),
        ("https://example.org/" + "work/index.html", True),
        ("~/.cache/scout and /var/cache/scout", True),
    ],
)
def test_a_path_of_one_machine_is_caught(text: str, allowed: bool) -> None:
    assert (rules.machine_path_violations("README.md", text) == []) is allowed


@pytest.mark.parametrize(
    ("path", "limit"), [("README.md", 150), ("scout_core/codec/README.md", 300)]
)
def test_a_long_readme_is_caught(path: str, limit: int) -> None:
    assert rules.readme_violations(path, "line\n" * (limit + 1))
    assert not rules.readme_violations(path, "line\n" * limit)
