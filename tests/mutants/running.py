"""Runs the tests on mutants, one process a core, and keeps every result at once: a second run goes on with the rest."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem, WorkResult

from tests.environment import REPOSITORY
from tests.mutants import operators
from tests.mutants.copies import make_copy
from tests.mutants.noticing import command_for, in_shell, is_run_by_interpreter, pytest_command
from tests.mutants.places import Mutant

TIMEOUT = 900.0  # seconds, for a machine that is busy otherwise; a test that hangs ends after 120


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
        yield from _run_pending([m for m in mutants if m.id in pending], results, folder, jobs)


def _run_pending(mutants: list[Mutant], results: WorkDB, folder: Path, jobs: int) -> Iterator[Outcome]:
    if not mutants:
        return
    context = get_context("spawn")
    copies: Queue[Path] = context.Queue()
    for i in range(jobs):
        make_copy(folder / f"copy-{i}")
        copies.put(folder / f"copy-{i}")
    with ProcessPoolExecutor(jobs, context, initializer=_enter, initargs=(copies,)) as pool:
        running: dict[Future[WorkResult], Mutant] = {}
        waiting = iter(mutants)
        try:
            while True:
                while len(running) < jobs and (mutant := next(waiting, None)) is not None:
                    running[pool.submit(_try, mutant)] = mutant
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    mutant, result = running.pop(done), done.result()
                    outcome = Outcome(mutant, _noticed_by(result))
                    results.set_result(mutant.id, result)
                    yield outcome
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _enter(copies: Queue[Path]) -> None:
    os.chdir(copies.get(timeout=60))


def _try(mutant: Mutant) -> WorkResult:
    assert operators.OPERATORS  # its import has told cosmic-ray of our operators, in this process as well
    return mutate_and_test([mutant.spec], in_shell(command_for(mutant.file)), TIMEOUT)


def _noticed_by(result: WorkResult) -> str | None:
    if result.test_outcome == TestOutcome.SURVIVED:
        return None
    output = result.output or ""
    if output == "timeout":
        return "timeout"
    if result.test_outcome != TestOutcome.KILLED or re.search(
        r"no tests ran|file or directory not found", output
    ):
        raise UnusableTestsError(output[-2000:])
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    return failed.group(1) if failed else "the tests ended without a report"


def failing_unchanged(outcomes: Iterable[Outcome], folder: Path) -> list[str]:
    """Those of the tests that noticed something which fail without a change too: what they noticed means nothing."""
    tests = sorted({outcome.by for outcome in outcomes if outcome.by is not None and "::" in outcome.by})
    make_copy(folder / "copy-0")
    failing: list[str] = []
    for of_kernels in (False, True):
        chosen = [test for test in tests if is_run_by_interpreter(test) == of_kernels]
        if chosen:
            command = (
                f"cd {shlex.quote(str(folder / 'copy-0'))} && "
                + pytest_command("-q -rfE --no-header --tb=no", of_kernels)
                + shlex.join(chosen)
            )
            output = run_tests(in_shell(command), 3600)[1]
            failing += re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
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
