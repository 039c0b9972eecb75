"""Copies of the tree in which code is changed: one a process, so that the tree itself is never touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TypeVar

from tests.environment import REPOSITORY
from tests.mutants import forked

Task, Result = TypeVar("Task"), TypeVar("Result")


def in_copies(
    tasks: Sequence[Task], work: Callable[[Task], Result], folder: Path, jobs: int
) -> Iterator[tuple[Task, Result]]:
    """Yields each task with the result of ``work``, as they come.

    Args:
        work: Runs in a process whose current folder is a copy of the tree, which it leaves as it was.
        folder: Holds the copies.
        jobs: Processes; each has a copy of its own.
    """
    if not tasks:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, once for all forks of a process
    context = get_context("spawn")
    copies: Queue[Path] = context.Queue()
    for i in range(jobs):
        make_copy(folder / f"copy-{i}")
        copies.put(folder / f"copy-{i}")
    with ProcessPoolExecutor(jobs, context, initializer=_enter, initargs=(copies,)) as pool:
        running: dict[Future[Result], Task] = {}
        waiting = iter(tasks)
        try:
            while True:
                while len(running) < jobs and (task := next(waiting, None)) is not None:
                    running[pool.submit(work, task)] = task
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _enter(copies: Queue[Path]) -> None:
    os.chdir(copies.get(timeout=60))
    forked.import_what_tests_need()


def make_copy(folder: Path) -> None:
    """Put all files that git does not ignore into `folder`, compiled, in place of what was there.

    Compiled files are checked by the hash of their source: two changes of one second would look alike otherwise, and
    every test run would compile the whole tree.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in _tracked():
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            shutil.copy2(source, target)
    compile_all = (sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash")
    subprocess.run([*compile_all, "fastdat", "kernels", "tests", "bench"], cwd=folder, check=True)


def _tracked() -> list[str]:
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name]
