"""The architecture rules as functions from source text to violations.

Owns: which room may import what, the size limits, the forbidden names. Each rule takes text, so
that a test can show that it fails on a bad example. Knows nothing of the tree on disk: `tree.py`
finds the files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

MODULE_LINES: Final = 600
FUNCTION_LINES: Final = 70
PARAMETERS: Final = 6
README_LINES: Final = 150
ROOM_README_LINES: Final = 300

# Imports point inward: a room imports itself and rooms of a lower rank. A module directly in
# scout_core (errors, modes, geometry) has rank 0.
RANKS: Final = {
    "protocol": 1,
    "control": 1,
    "allocation": 1,
    "codec": 2,
    "selection": 2,
    "models": 3,
    "rpc": 4,
    "engine": 4,
    "testbed": 4,
    "daemon": 5,
    "evaluation": 6,
    "cli": 7,
}
PURE_ROOMS: Final = frozenset({"protocol", "control", "allocation"})
DAEMONS: Final = frozenset({"edge_agent", "cloud_server"})
CLOSED_TO_DAEMONS: Final = frozenset({"testbed", "evaluation", "cli"})

# What a pure room must not reach: devices, peers, clocks, tasks, locks, logs, unseeded randomness.
IMPURE: Final = frozenset(
    [
        "asyncio",
        "concurrent",
        "datetime",
        "google",
        "grpc",
        "logging",
        "multiprocessing",
        "safetensors",
        "scout",
        "secrets",
        "socket",
        "ssl",
        "structlog",
        "subprocess",
        "threading",
        "time",
        "torch",
        "transformers",
        "uuid",
        "uvloop",
    ]
)
SEEDED: Final = frozenset({"Random", "Generator", "default_rng", "SeedSequence", "PCG64"})

# A third-party package and the places that may import it (folders or modules, as path prefixes).
GRPC: Final = frozenset({"grpc", "grpc_health", "grpc_reflection", "grpc_status"})
GRPC_PLACES: Final = ("scout_core/rpc/", "scout_core/daemon/", "edge_agent/", "cloud_server/")
STUB_PLACES: Final = (*GRPC_PLACES, "scout_core/cli/", "scout_core/evaluation/")
TRANSFORMERS_PLACES: Final = ("scout_core/engine/", "scout_core/evaluation/training")

FORBIDDEN_STEMS: Final = re.compile(r"(^|_)(utils?|helpers?|managers?|common|misc)(_|$)")
MACHINE_PATH: Final = re.compile(r"(?<![\w.~$}>-])/(?:work|root|home|Users)/\w")
SUPPRESSION: Final = re.compile(r"#\s*(?:noqa|type:\s*ignore|pyright:\s*ignore)(?P<rest>.*)")
SUPPRESSION_WITH_REASON: Final = re.compile(
    r"(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[\w, -]+\])\s+\W*\w+"
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: where (path, line) and what to do."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def imported_modules(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Every (line, dotted name) that a module imports, also inside functions.

    `from a import b` yields `a.b`, since b may be a module. Relative imports are resolved.
    """
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module,) if node.module else ())))
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def import_violations(path: str, source: str) -> list[Violation]:
    """Imports that a module of the three packages must not make (DESIGN: imports point inward)."""
    return [
        Violation(path, line, message)
        for line, name in imported_modules(path, source)
        if (message := _why_forbidden(path, name)) is not None
    ]


def _why_forbidden(path: str, name: str) -> str | None:
    top, _, rest = name.partition(".")
    if top == "tests":
        return "shipped code must not import tests"
    if top in GRPC and not path.startswith(GRPC_PLACES):
        return f"only scout_core/rpc and the daemons import {top}; go through scout_core.rpc"
    if "_pb2_grpc" in name and not path.startswith(STUB_PLACES):
        return "service stubs belong to scout_core/rpc, the daemons, cli and evaluation"
    if top == "transformers" and not path.startswith(TRANSFORMERS_PLACES):
        return "only scout_core/engine imports transformers; ask the engine"
    if path.startswith("scout_core/"):
        return _why_forbidden_in_core(_room(path), top, rest)
    return _why_forbidden_in_daemon(path.partition("/")[0], top, rest)


def _room(path: str) -> str:
    """The room of a scout_core module; empty for a module directly in scout_core."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 else ""


def _why_forbidden_in_core(room: str, top: str, rest: str) -> str | None:
    if top in DAEMONS:
        return f"scout_core must not import a daemon ({top}): imports point inward"
    if room in PURE_ROOMS | {""} and top in IMPURE:
        return f"a pure room must not import {top}: take values (now, seed, bytes) as arguments"
    if top == "scout_core":
        target = rest.partition(".")[0]
        if target in RANKS and target != room and RANKS[target] >= RANKS.get(room, 0):
            return f"{room or 'scout_core itself'} must not import {target}: imports point inward"
    return None


def _why_forbidden_in_daemon(daemon: str, top: str, rest: str) -> str | None:
    if top in DAEMONS - {daemon}:
        return f"{daemon} must not import {top}: the daemons know each other by the wire alone"
    target = rest.partition(".")[0]
    if top == "scout_core" and target in CLOSED_TO_DAEMONS:
        return f"a daemon must not import scout_core.{target}"
    return None


def randomness_violations(path: str, source: str) -> list[Violation]:
    """Uses of a global random source in a pure room; seeds are parameters."""
    found: list[Violation] = []
    message = "a pure room takes a seed and builds its own generator; no global random source"
    for line, name in imported_modules(path, source):
        module, _, member = name.rpartition(".")
        if name == "random" or (module.endswith("random") and member not in SEEDED):
            found.append(Violation(path, line, message))
    found.extend(
        Violation(path, node.lineno, message)
        for node in ast.walk(ast.parse(source, path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "random"
        and node.attr not in SEEDED
    )
    return found


def size_violations(path: str, source: str, *, count_parameters: bool = True) -> list[Violation]:
    """Modules, functions and parameter lists beyond the limits."""
    found: list[Violation] = []
    lines = len(source.splitlines())
    if lines > MODULE_LINES:
        found.append(Violation(path, 1, f"{lines} lines; split it (limit {MODULE_LINES})"))
    for node in ast.walk(ast.parse(source, path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            text = f"{node.name} has {length} lines; split it (limit {FUNCTION_LINES})"
            found.append(Violation(path, node.lineno, text))
        parameters = _parameters(node)
        if count_parameters and parameters > PARAMETERS:
            text = f"{node.name} takes {parameters} parameters; pass a frozen config (limit 6)"
            found.append(Violation(path, node.lineno, text))
    return found


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    if names and names[0] in {"self", "cls"}:
        names = names[1:]
    return len(names) + len(node.args.kwonlyargs)


def docstring_violations(path: str, source: str) -> list[Violation]:
    """Modules that do not say what they own."""
    if ast.get_docstring(ast.parse(source, path)):
        return []
    return [Violation(path, 1, "a module docstring says what the module owns and does not know")]


def suppression_violations(path: str, source: str) -> list[Violation]:
    """Suppressed findings without a rule and a reason: on the line, or in a comment above it."""
    found: list[Violation] = []
    lines = source.splitlines()
    for number, line in enumerate(lines, start=1):
        match = SUPPRESSION.search(line)
        if match is None:
            continue
        above = lines[number - 2].strip() if number > 1 else ""
        if not above.startswith("#") and not SUPPRESSION_WITH_REASON.match(match["rest"]):
            found.append(Violation(path, number, "a suppression names its rule and its reason"))
    return found


def name_violations(path: str) -> list[Violation]:
    """File and folder names that say nothing of the domain."""
    return [
        Violation(path, 1, f"'{part}' says nothing; use a noun of the domain")
        for part in PurePosixPath(path).parts
        if FORBIDDEN_STEMS.search(PurePosixPath(part).stem.lower())
    ]


def machine_path_violations(path: str, text: str) -> list[Violation]:
    """Paths of somebody's machine in the text of the project."""
    return [
        Violation(path, number, f"a path of one machine: {match[0]}…")
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := MACHINE_PATH.search(line)) is not None
    ]


def readme_violations(path: str, text: str) -> list[Violation]:
    """A README that nobody reads to its end; those of rooms, read by fewer, may be longer."""
    lines = len(text.splitlines())
    limit = README_LINES if path == "README.md" else ROOM_README_LINES
    if lines <= limit:
        return []
    return [Violation(path, lines, f"{lines} lines; move detail out (limit {limit})")]
