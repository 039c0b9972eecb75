"""Decoding processes: the same store without them, and none that outlives the packing process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastdat.data import Store
from fastdat.data.packing import workers
from fastdat.data.packing.workers import DecodingPool
from tests.data.helpers import content, packed
from tests.environment import REPOSITORY

POOL = """
import multiprocessing, os, sys, time
from fastdat.data.packing.workers import DecodingPool
if __name__ == "__main__":
    with DecodingPool(2, 1) as pool:
        list(pool.map(abs, [1, 2]))
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
        time.sleep(60)
"""
UNGUARDED = """
import fastdat.data.packing.pieces
from fastdat.data import pack
fastdat.data.packing.pieces.PIECE_IMAGES = 8
pack("folder", {source!r}, {dest!r}, resolution=32, workers=1)
"""


def script(folder: Path, code: str) -> list[str]:
    """The command that runs ``code`` as a script: spawned processes import it again."""
    path = folder / "script.py"
    path.write_text(f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}")
    return [sys.executable, str(path)]


@pytest.mark.usefixtures("small_pieces")
def test_processes_change_nothing(pictures: Path, tmp_path: Path) -> None:
    (pictures / "train" / "a" / "013.png").write_bytes(b"no image")
    packed(pictures, tmp_path / "alone", workers=0)
    packed(pictures, tmp_path / "many", workers=2)
    assert content(tmp_path / "alone") == content(tmp_path / "many")
    assert Store(tmp_path / "many").index["splits"]["train"]["skipped"][0][0] == "a/013.png"


def test_processes_die_with_the_packing_process(tmp_path: Path) -> None:
    with subprocess.Popen(script(tmp_path, POOL), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(children) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in children)
        process.kill()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline, "they wait for work that will never come"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_script_without_a_guard_is_explained(pictures: Path, tmp_path: Path) -> None:
    code = UNGUARDED.format(source=str(pictures), dest=str(tmp_path / "store"))
    result = subprocess.run(script(tmp_path, code), capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert 'without `if __name__ == "__main__":`' in result.stderr.splitlines()[-1]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of processes of each pool that is made; threads take their place."""
    made: list[int] = []

    class Threads(ThreadPoolExecutor):
        def __init__(self, count: int, **_: Any) -> None:
            made.append(count)
            super().__init__(count)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Threads)
    return made


@pytest.mark.parametrize(
    ("count", "result_bytes", "waiting"),
    [(3, 1, 6), (2, (2 << 30) // 4, 4), (3, (2 << 30) // 4, 4), (3, (2 << 30) // 4 + 1, 3), (2, 3 << 30, 1)],
)
def test_results_that_wait_are_bounded_in_number_and_bytes(
    count: int, result_bytes: int, waiting: int, pools: list[int]
) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(-12, 0):
            taken.append(task)
            yield task

    with DecodingPool(count, result_bytes) as pool:
        results = pool.map(abs, tasks())
        assert next(results) == 12
        assert len(taken) == waiting + 1
        assert list(results) == [*range(11, 0, -1)]
    assert pools == [count]


def test_by_default_there_is_a_process_for_each_core_that_this_one_may_use(
    pools: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0: {1, 4, 5}}[process])
    with DecodingPool(None, 1) as pool:
        assert [*pool.map(abs, [-2, -1], in_processes=False)] == [2, 1]
    with DecodingPool(0, 1) as pool:
        assert [*pool.map(abs, [-2, -1])] == [2, 1]
    assert pools == [3]
