"""A run of several processes that hangs ends, and says which of them is the cause."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fastdat
from fastdat.training import checkpoint
from fastdat.training.callbacks import Callbacks
from fastdat.training.hang_watch import STATUS, HangWatch, Sign, described
from fastdat.training.run_checkpoints import RunCheckpoints
from fastdat.training.snapshots import Snapshots
from fastdat.util.ranks import Ranks
from tests.environment import REPOSITORY
from tests.training.runs import resumable, trainer_of

WAITS = Sign(7, 41, "wait_tensor (_functional_collectives.py, line 9)", True)
LOADS = Sign(7, 41, "fetch (my_data.py, line 12)", False)


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ({0: (WAITS, 1.0), 1: (LOADS, 1.0), 2: (WAITS, 0.5)}, "rank 1 does not come to the next exchange"),
        ({0: (LOADS, 1.0), 1: (WAITS, 1.0), 2: (LOADS, 0.5)}, "ranks 0, 2 do not come to the next exchange"),
        ({0: (WAITS, 1.0), 1: (LOADS, 99.0), 2: (WAITS, 0.5)}, "no sign of life from rank 1: the process"),
        ({0: (WAITS, 1.0), 1: (WAITS, 1.0)}, "no sign of life from rank 2: the process"),
        ({0: (WAITS, 1.0), 1: (WAITS, 1.0), 2: (WAITS, 1.0)}, "all ranks are inside an exchange or wait"),
    ],
)
def test_the_cause_in_words(signs: dict[int, tuple[Sign, float]], expected: str) -> None:
    text = described(signs, 3, silent_after=20.0, timeout=600.0)
    assert expected in text.splitlines()[0]
    assert "no step for 600 s (hang_timeout)" in text
    for rank in range(3):
        assert f"rank {rank}: " in text.partition("\n")[2]
    if 1 in signs and signs[1][0] is LOADS:
        assert "rank 1: at step 41, in fetch (my_data.py, line 12)" in text


TORCH, FASTDAT, LIBRARY = (str(Path(m.__file__ or "").parent) for m in (torch, fastdat, threading))
MINE = ("/home/me/train.py", "main")


SignAt = Callable[[list[tuple[str, str]]], Sign]


@pytest.fixture
def sign_at(monkeypatch: pytest.MonkeyPatch) -> SignAt:
    """The seventh sign of a rank whose main thread is in these places, file and function, from the outside in."""

    def sign(places: list[tuple[str, str]]) -> Sign:
        frames = [traceback.FrameSummary(file, i, name) for i, (file, name) in enumerate(places, 1)]
        watch = HangWatch(Ranks(), 600.0)
        watch._main = threading.get_ident()
        watch.beat(41)
        stack = traceback.StackSummary.from_list(frames)
        monkeypatch.setattr(traceback, "extract_stack", lambda frame: stack)
        return watch._sign(7)

    return sign


@pytest.mark.parametrize(
    ("inside", "where", "waits"),
    [
        ([], "main (train.py, line 1)", False),
        ([("/home/me/data.py", "fetch"), (f"{LIBRARY}/threading.py", "wait")], "fetch (data.py, line 2)", False),
        ([("/home/me/data.py", "fetch"), ("/x/site-packages/lmdb/db.py", "get")], "fetch (data.py, line 2)", False),
        ([(f"{TORCH}/distributed/c10d.py", "all_reduce")], "all_reduce (c10d.py, line 2)", True),
        ([(f"{FASTDAT}/training/trainer.py", "_iterate")], "_iterate (trainer.py, line 2)", True),
        ([(f"{FASTDAT}/data/store.py", "read")], "main (train.py, line 1)", False),
    ],
)  # fmt: skip
def test_where_a_rank_is(inside: list[tuple[str, str]], where: str, waits: bool, sign_at: SignAt) -> None:
    """The innermost place in the user's code, unless the rank may wait for others."""
    assert sign_at([MINE, *inside]) == Sign(7, 41, where, waits)


def test_where_a_rank_is_that_runs_nothing_of_ones_own(sign_at: SignAt) -> None:
    files = [("/x/bin/fastdat", "<module>"), (f"{LIBRARY}/queue.py", "get")]
    assert sign_at(files) == Sign(7, 41, "get (queue.py, line 2)", False)


def test_one_process_has_no_watch() -> None:
    with HangWatch(Ranks(), 0.01) as watch:
        watch.beat(1)
        time.sleep(0.1)


def test_work_of_one_rank_is_excused_and_no_exchange_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A rank that waits for others while it is excused would wait for ever for one that hangs."""
    run = trainer_of(resumable("mlp-dat-gaussians", samples=50, flip=False), None, tmp_path / "run")
    excused: dict[str, set[bool]] = {}

    def noted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapper(*arguments: Any, **more: Any) -> Any:
            excused.setdefault(name, set()).add(run._watch._busy)
            return original(*arguments, **more)

        monkeypatch.setattr(owner, name, wrapper)

    for owner, name in (
        (checkpoint, "save"),
        (Callbacks, "numbers"),
        (Ranks, "by_first"),
        (RunCheckpoints, "check_finite"),
        (RunCheckpoints, "_check_equal"),
        (Snapshots, "keep"),
    ):
        noted(owner, name)
    run.train()
    exchanges = {name: {False} for name in ("by_first", "check_finite", "_check_equal", "keep")}
    assert excused == exchanges | {"save": {True}, "numbers": {True}}
    del excused["save"]
    run._checkpoints.save_best()
    assert excused == exchanges | {"save": {True}, "numbers": {True}}


PROGRAM = """
import sys, threading, time
import torch.distributed as dist
from fastdat.training.hang_watch import HangWatch
from fastdat.util.ranks import Ranks

def load_for_ever():
    print("hangs", flush=True)
    threading.Event().wait(1000)  # whose innermost frames are the standard library's

dist.init_process_group("gloo")
ranks, hangs = Ranks.now(), sys.argv[1]
compiling = False
with HangWatch(ranks, float(sys.argv[2]), busy=lambda: compiling) as watch:
    for step in range(10):
        watch.beat(step)
        if step == 3 and ranks.rank == 1 and hangs == "yes":
            load_for_ever()
        if step == 3 and ranks.rank == 1 and hangs == "compiles":
            compiling = True
            time.sleep(3 * float(sys.argv[2]))
            compiling = False
        ranks.barrier()
        time.sleep(0.05)
print("done", flush=True)
dist.barrier()
"""


def start(folder: Path, hangs: str, timeout: float) -> list[subprocess.Popen[str]]:
    (folder / "program.py").write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, str(folder / "program.py"), hangs, str(timeout)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.slow
def test_a_rank_in_its_own_data_is_named(tmp_path: Path) -> None:
    processes = start(tmp_path, "yes", 4.0)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    # The process that holds the store may end the other one's connection first; one message is enough.
    assert STATUS in [process.returncode for process in processes]
    text = "".join(errors)
    assert "rank 1 does not come to the next exchange" in text
    assert "rank 1: at step 3, in load_for_ever (program.py" in text


@pytest.mark.slow
def test_a_stopped_process_is_named(tmp_path: Path) -> None:
    processes = start(tmp_path, "yes", 6.0)
    assert processes[1].stdout is not None
    assert processes[1].stdout.readline() == "hangs\n"
    processes[1].send_signal(signal.SIGSTOP)
    try:
        _, error = processes[0].communicate(timeout=120)
    finally:
        processes[1].kill()
        processes[1].communicate()
    assert processes[0].returncode == STATUS
    assert "rank 0: no step for 6 s (hang_timeout): no sign of life from rank 1" in error


@pytest.mark.slow
@pytest.mark.parametrize(("hangs", "timeout"), [("no", 30.0), ("compiles", 4.0)])
def test_a_run_that_goes_on_is_left_alone(hangs: str, timeout: float, tmp_path: Path) -> None:
    processes = start(tmp_path, hangs, timeout)
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "done\n"), error
