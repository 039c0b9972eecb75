"""`fastdat eval` in several processes, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.command_line import invoke
from tests.environment import REPOSITORY
from tests.training.runs import read_scores


def on_two_ranks(*of_rank: tuple[object, ...]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of ``fastdat eval``, whose arguments are given for each rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank, arguments in enumerate(of_rank):
        variables = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        command = [sys.executable, "-m", "fastdat", "eval", *map(str, arguments), "--device", "cpu"]
        environment = (
            os.environ | {name: str(value) for name, value in variables.items()} | {"OMP_NUM_THREADS": "1"}
        )
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=pipe, stderr=pipe, text=True)
        )
    ended = [process.communicate(timeout=240) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, ended, strict=True)]


@pytest.mark.slow
def test_two_ranks_repeat_the_score_of_one(run: Path) -> None:
    """The 20 fakes in batches of 8: two for rank 0, one for rank 1."""
    assert invoke("eval", run)[0] == 0
    before = read_scores(run)
    arguments = (run, "--extractor", "tests.training.runs:means")
    (code, out, err), (other_code, other_out, other_err) = on_two_ranks(arguments, arguments)
    assert (code, other_code) == (0, 0), err + other_err
    assert "scoring latest of" in err
    assert "fakes: 20 of 20 (100%)" in err
    assert out.count("[means]") == 2
    assert (other_out, other_err) == ("", ""), "rank 0 alone speaks"
    assert read_scores(run) == [*before, *before[-2:]]


@pytest.mark.slow
def test_a_mistake_on_one_rank_ends_both(run: Path, tmp_path: Path) -> None:
    (code, out, err), (other_code, _, other_err) = on_two_ranks((run,), (tmp_path / "nowhere",))
    assert (code, other_code) == (2, 2), err + other_err
    assert out == ""
    assert "is no run folder" in other_err
    assert "is no run folder" in err
    assert "raised by rank 1 of 2" in err
    assert "Traceback" not in err + other_err
