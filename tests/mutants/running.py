"""Runs the tests on mutants, and keeps every result at once: a second run goes on with the rest."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cosmic_ray.plugins
import pytest
from cosmic_ray.mutating import use_mutation
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

from tests.environment import REPOSITORY
from tests.mutants import operators
from tests.mutants.copies import in_copies, make_copy
from tests.mutants.forked import run_tests
from tests.mutants.noticing import by_interpreter, noticing_tests
from tests.mutants.places import Mutant

TIMEOUT = 300.0  # seconds; no set of tests takes a third of it without a change
QUICK = "not slow and not gpu"
_FAILED = r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$"


@dataclass(frozen=True)
class Outcome:
    """What the tests said of one mutant; `by` is the test that failed, "timeout", or None where all passed."""

    mutant: Mutant
    by: str | None


class UnusableTestsError(Exception):
    """The tests for a file ended without a verdict: they were not found, or none was selected."""


def run(mutants: list[Mutant], folder: Path, jobs: int) -> Iterator[Outcome]:
    """Yields the outcome of every mutant, those of an earlier run with the same code and tests first.

    Args:
        folder: Holds the copies of the tree and the results so far.
        jobs: Processes; each has a copy of its own.
    """
    by_id = {mutant.id: mutant for mutant in mutants}
    folder.mkdir(parents=True, exist_ok=True)
    with use_db(folder / f"{_state(mutants)}.sqlite") as results:
        if not results.num_work_items:
            results.add_work_items(WorkItem.single(mutant.id, mutant.spec) for mutant in mutants)
        for item, result in results.completed_work_items:
            yield Outcome(by_id[item.job_id], _noticed_by(result))
        pending = {item.job_id for item in results.pending_work_items}
        left = [mutant for mutant in mutants if mutant.id in pending]
        for mutant, result in in_copies(left, _try, folder, jobs):
            outcome = Outcome(mutant, _noticed_by(result))
            results.set_result(mutant.id, result)
            yield outcome


def _try(mutant: Mutant) -> WorkResult:
    assert operators.OPERATORS  # its import has told cosmic-ray of our operators, in this process as well
    operator = cosmic_ray.plugins.get_operator(mutant.operator)()
    with use_mutation(mutant.spec.module_path, operator, mutant.spec.occurrence):
        for with_interpreter, tests in by_interpreter(noticing_tests()[mutant.file]).items():
            status, output = run_tests(["-x", "-m", QUICK, *tests], with_interpreter, TIMEOUT)
            if status == pytest.ExitCode.NO_TESTS_COLLECTED or (
                status == pytest.ExitCode.USAGE_ERROR and "not found" in output
            ):
                raise UnusableTestsError(f"the tests for {mutant.file} say nothing:\n{output[-2000:]}")
            if status != pytest.ExitCode.OK:
                said = "timeout" if status is None else output
                return WorkResult(WorkerOutcome.NORMAL, said, TestOutcome.KILLED)
    return WorkResult(WorkerOutcome.NORMAL, "", TestOutcome.SURVIVED)


def _noticed_by(result: WorkResult) -> str | None:
    if result.test_outcome == TestOutcome.SURVIVED:
        return None
    output = result.output or ""
    if output == "timeout":
        return "timeout"
    failed = re.search(_FAILED, output, re.MULTILINE)
    return failed.group(1) if failed else "the tests ended without a report"


def failing_unchanged(outcomes: Iterable[Outcome], folder: Path) -> list[str]:
    """Those of the tests that noticed something which fail without a change too: what they noticed means nothing."""
    tests = sorted({outcome.by for outcome in outcomes if outcome.by is not None and "::" in outcome.by})
    copy, failing = folder / "copy-0", []
    make_copy(copy)
    with contextlib.chdir(copy):
        for with_interpreter, chosen in by_interpreter(tests).items():
            output = run_tests(["-m", QUICK, *chosen], with_interpreter, 3600)[1]
            failing += re.findall(_FAILED, output, re.MULTILINE)
    return failing


def _state(mutants: Iterable[Mutant]) -> str:
    """Of the code, the tests and the choice of mutants: results of one state say nothing of another."""
    digest = hashlib.sha256()
    for top in ("fastdat", "kernels", "tests"):
        for path in sorted((REPOSITORY / top).rglob("*")):
            if path.suffix in {".py", ".toml", ".json"}:
                digest.update(path.read_bytes())
    digest.update("".join(mutant.id for mutant in mutants).encode())
    return digest.hexdigest()[:16]
