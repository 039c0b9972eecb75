"""The structure stays simple: few units, imports in one direction, files that can be read in one sitting."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.environment import REPOSITORY

PACKAGE = REPOSITORY / "fastdat"
MAXIMUM_LINES = 400


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def unit_of(module: str) -> str:
    """``fastdat.engine.attack`` -> ``engine``: a unit is a folder, or a file directly under ``fastdat/``."""
    name = [*module.split("."), "__init__"][1]
    is_unit = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
    return name if is_unit else "__init__"


def imported_by(path: Path) -> set[str]:
    """Modules of fastdat that a file names in its imports, wherever they stand in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in modules if module.split(".")[0] == "fastdat"}


@cache
def graph() -> dict[str, frozenset[str]]:
    """Unit -> units that it imports; ``kernels`` is a folder of its own at the top of the tree."""
    found: dict[str, set[str]] = {}
    for path in sources("fastdat", "kernels"):
        parts = path.relative_to(REPOSITORY).parts
        unit = "kernels" if parts[0] == "kernels" else parts[1].removesuffix(".py")
        unit = "cli" if unit == "__main__" else unit  # two doors to one command line
        if "kernels" in parts[1:]:  # the link fastdat/kernels, where rglob follows links
            continue
        found.setdefault(unit, set()).update({unit_of(module) for module in imported_by(path)} - {unit})
    return {unit: frozenset(others) for unit, others in found.items()}


def level(unit: str, above: tuple[str, ...] = ()) -> int:
    assert unit not in above, f"an import cycle: {' -> '.join((*above, unit))}"
    return 1 + max((level(other, (*above, unit)) for other in graph()[unit]), default=0)


def test_few_units_few_levels_few_edges_and_no_cycle() -> None:
    assert len(graph()) <= 18
    assert max(map(level, graph())) <= 10
    assert sum(map(len, graph().values())) <= 56


@pytest.mark.parametrize(
    ("unit", "allowed"),
    [
        ("kernels", set()),
        ("util", set()),
        ("info", set()),
        ("nets", set()),
        ("losses", {"kernels"}),
        ("config", {"util"}),
        ("regularizers", {"config", "losses", "nets", "util"}),
        ("reference", {"config", "info", "losses", "regularizers"}),
        ("engine", {"config", "info", "kernels", "losses", "regularizers"}),
        ("robustness", {"engine", "util"}),
        ("data", {"util"}),
        ("report", {"util"}),
        ("cli", {"commands"}),
    ],
)
def test_what_a_unit_may_know(unit: str, allowed: set[str]) -> None:
    assert graph()[unit] <= allowed


def test_every_file_can_be_read_in_one_sitting() -> None:
    lengths = {
        path: len(path.read_text().splitlines()) for path in sources("fastdat", "kernels", "bench", "tests")
    }
    too_long = {str(path): length for path, length in lengths.items() if length > MAXIMUM_LINES}
    assert too_long == {}


def test_file_names_are_unique() -> None:
    names = Counter(
        path.name
        for path in {path.resolve() for path in sources("fastdat", "kernels")}
        if path.name != "__init__.py"
    )
    commands = {path.name for path in sources("fastdat/commands")}  # named as the user types them
    assert [name for name, count in names.items() if count > 1 and name not in commands] == []
