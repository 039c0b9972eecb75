"""What the tests say of a mutant, and what a second run may take over from a first one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cosmic_ray import work_item

from tests.mutants import places, running

CODE = "def half(x):\n    return x / 2\n"


def result(
    output: str, outcome: work_item.TestOutcome = work_item.TestOutcome.KILLED
) -> work_item.WorkResult:
    return work_item.WorkResult(
        worker_outcome=work_item.WorkerOutcome.NORMAL, output=output, test_outcome=outcome
    )


@pytest.mark.parametrize(
    ("output", "by"),
    [
        (
            "F\nFAILED tests/test_a.py::test_b[one two] - assert 1 == 2\n1 failed",
            "tests/test_a.py::test_b[one two]",
        ),
        ("FAILED tests/test_a.py::test_b\n1 failed", "tests/test_a.py::test_b"),
        ("ERROR tests/test_a.py - NameError\n", "tests/test_a.py"),
        ("timeout", "timeout"),
        ("ImportError while loading conftest", "the tests ended without a report"),
    ],
)
def test_which_test_noticed(output: str, by: str) -> None:
    assert running._noticed_by(result(output)) == by


def test_all_passed() -> None:
    assert running._noticed_by(result("3 passed", work_item.TestOutcome.SURVIVED)) is None


@pytest.mark.parametrize(
    ("status", "output", "noticed"),
    [
        (0, "3 passed", None),
        (1, "FAILED tests/test_a.py::test_b", "tests/test_a.py::test_b"),
        (None, "", "timeout"),
        (-11, "Fatal Python error", "the tests ended without a report"),
        (
            3,
            "SystemExit: 0\nno tests ran",
            "the tests ended without a report",
        ),  # the changed module ends the process
        (4, "ImportError while loading conftest", "the tests ended without a report"),
    ],
)
def test_what_an_exit_status_says(
    status: int | None,
    output: str,
    noticed: str | None,
    mutants: list[places.Mutant],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "noticing_tests", lambda: {"box.py": ["test_box.py"]})
    monkeypatch.setattr(running, "run_tests", lambda *_: (status, output))
    assert running._noticed_by(running._try(mutants[0])) == noticed
    assert Path("box.py").read_text() == CODE


@pytest.mark.parametrize(
    ("status", "output"),
    [(4, "ERROR: file or directory not found: test_box.py"), (5, "no tests ran in 0.1s")],
)
def test_tests_that_say_nothing(
    status: int, output: str, mutants: list[places.Mutant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "noticing_tests", lambda: {"box.py": ["test_box.py"]})
    monkeypatch.setattr(running, "run_tests", lambda *_: (status, output))
    with pytest.raises(running.UnusableTestsError, match=r"box\.py say nothing"):
        running._try(mutants[0])


@pytest.fixture
def mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[places.Mutant]:
    """Of a tree of one file, whose test runs in this process."""
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    monkeypatch.setattr(running, "REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "box.py").write_text(CODE)
    return places.mutants("box.py")


def test_a_second_run_goes_on_where_the_first_ended(
    mutants: list[places.Mutant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def try_each(
        pending: list[places.Mutant], *_: object
    ) -> Iterator[tuple[places.Mutant, work_item.WorkResult]]:
        for mutant in pending:
            tried.append(mutant.id)
            yield mutant, result("FAILED test_box.py::test_half")

    monkeypatch.setattr(running, "in_copies", try_each)
    first = running.run(mutants, tmp_path / "work", 1)
    next(first)
    first.close()
    outcomes = list(running.run(mutants, tmp_path / "work", 1))
    assert len(tried) == len(mutants) == len(set(tried))
    assert {outcome.mutant.id for outcome in outcomes} == set(tried)
    assert {outcome.by for outcome in outcomes} == {"test_box.py::test_half"}


@pytest.mark.parametrize(
    "edited", ["fastdat/losses.py", "tests/test_losses.py", "tests/mutants/noticing.toml"]
)
def test_after_an_edit_nothing_is_taken_over(
    mutants: list[places.Mutant], tmp_path: Path, edited: str
) -> None:
    path = tmp_path / edited
    path.parent.mkdir(parents=True)
    path.write_text("one = 1\n")
    before = running._state(mutants)
    assert running._state(mutants) == before
    path.write_text("one = 2\n")
    assert running._state(mutants) != before
    path.write_text("one = 1\n")
    assert running._state(mutants[1:]) != before
