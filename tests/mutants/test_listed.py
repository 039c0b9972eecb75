"""Faults that are written down: they fit the code as it is, name tests that there are, and CONTRIBUTING.md has them."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.environment import REPOSITORY
from tests.mutants import listed
from tests.mutants.listed import LISTS, Fault, command, faults, source_of

EVERY = [fault for listing in LISTS for fault in faults(listing)]
SECTION = "## Faults that a test must notice\n"


@cache
def defined_in(file: str) -> dict[str, bool]:
    """The tests of a file, those of a class as Class::test, and whether one needs a GPU."""
    found: dict[str, bool] = {}
    for node in ast.parse((REPOSITORY / file).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = needs_gpu(node)
        elif isinstance(node, ast.ClassDef):
            tests = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {f"{node.name}::{test.name}": needs_gpu(node) or needs_gpu(test) for test in tests}
    return found


def needs_gpu(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any("mark.gpu" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("listing", LISTS, ids=lambda listing: listing.stem)
def test_faults_fit_the_code_and_name_tests_that_run_everywhere(listing: Path) -> None:
    """A test that is not there would fail as if it had noticed, and one for a GPU is skipped."""
    for fault in faults(listing):
        source = source_of(fault)
        changed = fault.applied(source)
        assert changed != source, fault.name
        ast.parse(changed, fault.name)
        file, _, test = fault.test.partition("[")[0].partition("::")
        assert defined_in(file).get(test) is False, fault.test


def test_names_are_unique() -> None:
    names = [fault.name for fault in EVERY]
    assert len(set(names)) == len(names)


def test_contributing_shows_the_faults_of_the_system() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    section = text.partition(SECTION)[2].partition("\n## ")[0]
    header, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    assert header == "| fault | test that fails |"
    system = next(listing for listing in LISTS if listing.stem == "system_faults")
    assert rows == [f"| {fault.name} | `{fault.test}` |" for fault in faults(system)]


@pytest.mark.parametrize(("source", "times"), [("a = 1\n", 0), ("rate = 2\nrate = 2\n", 2)])
def test_code_that_was_edited_is_an_error(source: str, times: int) -> None:
    fault = Fault(
        "the rate is higher", "fastdat/rate.py", "rate = 2\n", "rate = 3\n", "tests/test_rate.py::test"
    )
    with pytest.raises(
        ValueError, match=f"'the rate is higher': fastdat/rate.py holds {times} times 'rate = 2"
    ):
        fault.applied(source)
    assert fault.applied("a = 1\nrate = 2\n") == "a = 1\nrate = 3\n"


def test_only_faults_that_no_test_notices_are_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "rate = 2\nsteps = 5\n"

    def small_copy(folder: Path) -> None:
        folder.mkdir()
        (folder / "code.py").write_text(code)
        (folder / "check.py").write_text("assert 'rate = 2' in open('code.py').read()\n")

    monkeypatch.setattr(listed, "make_copy", small_copy)
    monkeypatch.setattr(listed, "command", lambda test: f"{sys.executable} -I -S {test}")
    seen = Fault("the rate is higher", "code.py", "rate = 2", "rate = 3", "check.py")
    missed = [Fault(f"{n} steps", "code.py", "steps = 5", f"steps = {n}", "check.py") for n in (4, 6)]
    assert listed.unnoticed([missed[0], seen, missed[1]], tmp_path, jobs=2) == missed
    assert [(tmp_path / f"copy-{i}" / "code.py").read_text() for i in range(2)] == [code, code]


def test_kernels_run_in_the_interpreter() -> None:
    assert "TRITON_INTERPRET=1" in command("tests/kernels/test_sizes.py::test_one")
    assert "TRITON_INTERPRET=0" in command("tests/test_losses.py::test_formulas")
