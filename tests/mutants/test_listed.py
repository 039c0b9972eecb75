"""Faults that are written down: they fit the code as it is, name tests that there are, and CONTRIBUTING.md has them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.environment import REPOSITORY
from tests.mutants import listed
from tests.mutants.listed import LISTS, Fault, faults, source_of

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


CODE = "rate = 2\nsteps = 5\n"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], bool]]:
    """Tests and whether the interpreter runs them, of each run in a tree of one file; they look at its rate."""
    runs: list[tuple[list[str], bool]] = []
    monkeypatch.chdir(tmp_path)
    Path("code.py").write_text(CODE)

    def here(tasks: list[Fault], work: Callable[[Fault], bool], *_: object) -> Iterator[tuple[Fault, bool]]:
        return ((task, work(task)) for task in reversed(tasks))

    def run(tests: list[str], with_interpreter: bool, timeout: float) -> tuple[int, str]:
        runs.append((tests, with_interpreter))
        failed = "rate = 2" not in Path("code.py").read_text()
        return int(failed), "1 failed\n" if failed else "F\n1 passed\n"

    monkeypatch.setattr(listed, "in_copies", here)
    monkeypatch.setattr(listed, "run_tests", run)
    return runs


def test_only_faults_that_no_test_notices_are_returned(asked: list[object], tmp_path: Path) -> None:
    seen = Fault("the rate is higher", "code.py", "rate = 2", "rate = 3", "tests/test_code.py::test")
    missed = [
        Fault(f"{n} steps", "code.py", "steps = 5", f"steps = {n}", "tests/test_code.py::test")
        for n in (4, 6)
    ]
    assert listed.unnoticed([missed[0], seen, missed[1]], tmp_path, jobs=2) == dict.fromkeys(
        missed, "1 passed"
    )
    assert Path("code.py").read_text() == CODE
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "1 skipped"),
        (2, "1 error"),
        (4, "not found"),
        (5, "1 deselected"),
        (3, ""),
        (None, ""),
        (-11, "fault"),
    ],
)
def test_a_test_that_says_nothing_has_noticed_nothing(
    status: int | None, said: str, asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped, not collected, not found, not selected, or hanging. A crash is noticed."""
    monkeypatch.setattr(listed, "run_tests", lambda *_: (status, f"of pytest\n{said}\n" if said else ""))
    fault = Fault("the rate is higher", "code.py", "rate = 2", "rate = 3", "tests/test_code.py::test")
    expected = "no end in 300 s" if status is None else said or "status 3"
    assert listed.unnoticed([fault], tmp_path, jobs=1) == ({} if status == -11 else {fault: expected})


def test_kernels_run_in_the_interpreter(asked: list[tuple[list[str], bool]], tmp_path: Path) -> None:
    for test in ("tests/kernels/test_sizes.py::test_one", "tests/test_losses.py::test_formulas"):
        listed.unnoticed(
            [Fault("the rate is higher", "code.py", "rate = 2", "rate = 3", test)], tmp_path, jobs=1
        )
    assert asked == [
        (["tests/kernels/test_sizes.py::test_one"], True),
        (["tests/test_losses.py::test_formulas"], False),
    ]
