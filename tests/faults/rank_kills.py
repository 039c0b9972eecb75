"""Several ranks: one or all of them are killed, one has NaN; the number of ranks changes when the run is resumed.

The ranks are forks of this process with torchrun's environment variables, so a round takes seconds; torchrun.py does
the same with torchrun itself.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdat.training.launch import joined
from fastdat.util.ranks import Ranks
from tests.faults.toy_runs import PRESETS, Ended, config, exit_code, images, problems, train
from tests.training.runs import change_reals, read_log, results, trainer_of

#: Divisible by the numbers of ranks.
BATCH = {"batch_size": 8}
SIZES = (1, 2, 4)
#: Seconds in which the ranks that are left must end by themselves.
PATIENCE = 60.0
#: What a run measures of each part alone and then averages: a root of a mean of squares is no mean.
_OF_PARTS = ("delta_rms_real", "delta_rms_fake")
#: Of results on several ranks, whose sums have another order, relative to the largest entry of a tensor.
TOLERANCE = 1e-5


@dataclass
class RankKills:
    """What came out.

    Args:
        runs: finished runs, each compared with one of one rank.
        rounds: kills of ranks that had not ended, by how many of how many.
        nan_rounds: runs in which one rank alone had NaN.
        largest_difference: from one rank, relative to the largest entry of a tensor.
        losses: what went wrong, in words.
    """

    runs: int = 0
    rounds: dict[str, int] = field(default_factory=dict)
    nan_rounds: int = 0
    largest_difference: float = 0.0
    losses: list[str] = field(default_factory=list)


def forked_ranks(
    size: int, of_rank: Callable[[Ranks], None], folder: Path, kill: tuple[set[int], float] | None = None
) -> list[Ended]:
    """Run ``of_rank`` in ``size`` forks of this process.

    Args:
        kill: ranks that get SIGKILL, and how many seconds after all have found each other.

    Returns:
        How each ended; the code is -99 where a rank did not end by itself.
    """
    port = str(_free_port())
    notes = [folder / f"note-{rank}" for rank in range(size)]
    processes = []
    for rank, note in enumerate(notes):
        note.unlink(missing_ok=True)
        note.with_suffix(".joined").unlink(missing_ok=True)
        child = os.fork()
        if not child:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            _speak_into(folder / f"stderr-{rank}")
            os._exit(exit_code(partial(_joined, of_rank, note.with_suffix(".joined")), note))
        processes.append(child)
    if kill is not None:
        _wait_for([note.with_suffix(".joined") for note in notes])
        time.sleep(kill[1])
        for rank in kill[0]:
            os.kill(processes[rank], signal.SIGKILL)
    codes = _codes(processes)
    return [
        Ended(code, note.read_text() if note.exists() else "")
        for code, note in zip(codes, notes, strict=True)
    ]


def _joined(of_rank: Callable[[Ranks], None], told: Path) -> None:
    with joined("cpu") as ranks:
        told.touch()
        of_rank(ranks)


def _speak_into(file: Path) -> None:
    """What gloo says about a lost peer fills screens."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _wait_for(files: list[Path]) -> None:
    end = time.monotonic() + PATIENCE
    while not all(file.exists() for file in files) and time.monotonic() < end:
        time.sleep(0.01)


def _codes(processes: list[int]) -> list[int]:
    """Exit codes; -99 for a process that does not end in time."""
    codes: dict[int, int] = {}
    end = time.monotonic() + PATIENCE
    while len(codes) < len(processes):
        for child in set(processes) - set(codes):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                codes[child] = -99
        time.sleep(0.02)
    return [codes[child] for child in processes]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def difference(run: Path, of_one: dict[str, Any]) -> float:
    """The largest difference from a run of one rank: of D and what was measured, for points also of G, the EMA and both
    optimizers.

    In a G for images the biases before a BatchNorm have no gradient but rounding errors, which Adam scales up.
    """
    here = results(run)
    keys = ("netD",) if "images" in run.name else ("netG", "netD", "ema", "optG", "optD")
    of_state = max(_largest(of_one["state"][key], here["state"][key]) for key in keys)
    lines = zip(of_one["stats"], here["stats"], strict=True)
    return max(of_state, *(_largest(a[key], b[key]) for a, b in lines for key in a if key not in _OF_PARTS))


def _largest(a: Any, b: Any) -> float:
    if isinstance(a, dict):
        assert list(a) == list(b), f"{list(a)} and {list(b)}"
        return max((_largest(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, (list, tuple)):
        return max((_largest(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, Tensor):
        a, b = a.double(), b.double()
        return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)) if a.numel() else 0.0
    if isinstance(a, float):
        return float(abs(a - b) / max(1.0, abs(a)))
    return 0.0 if a == b else math.inf


def campaign(folder: Path, rounds: int, until: float) -> RankKills:
    """Kills at random times, then the run is finished on another number of ranks; and NaN on one rank."""
    found, draws = RankKills(), random.Random(22)
    references = {}
    train(
        folder / "warm", **BATCH
    )  # imports what it needs: no time of a run, in which a kill meets something
    for name in PRESETS:
        begun = time.monotonic()
        train(folder / name, name, **BATCH)
        references[name] = results(folder / name), time.monotonic() - begun
    for i in range(rounds):
        if time.monotonic() > until:
            break
        name = PRESETS[i % 3 == 2]
        of_one, seconds = references[name]
        run = folder / ("killed-images" if name == PRESETS[1] else "killed")
        shutil.rmtree(run, ignore_errors=True)
        size = draws.choice(SIZES[1:])
        for _ in range(draws.randint(1, 3)):
            killed = draws.choice([{draws.randrange(size)}, set(range(size))])
            moment = draws.uniform(0, 2 * seconds)
            ended = forked_ranks(size, partial(_train, run, name), folder, (killed, moment))
            key = f"{len(killed)} of {size}"
            found.losses += [f"{name}, {key}: {loss}" for loss in _left(ended, run)]
            if any(ended[rank].code != -signal.SIGKILL for rank in killed):  # the run was done before
                break
            found.rounds[key] = found.rounds.get(key, 0) + 1
            size = draws.choice(SIZES[1:])
        found.losses += [
            f"{name}: {loss}" for loss in _finish(run, name, draws.choice(SIZES), of_one, found, folder)
        ]
    while found.nan_rounds < max(2, rounds // 5) and time.monotonic() < until:
        found.losses += _nan_on_one_rank(folder / "nan", folder, rollback=found.nan_rounds % 2 == 0)
        found.nan_rounds += 1
    return found


def _train(run: Path, name: str, ranks: Ranks) -> None:
    train(run, name, **BATCH)


def _left(ended: list[Ended], run: Path) -> list[str]:
    """What is wrong after a kill: the ranks that are left must end, and the checkpoints be whole."""
    hung = [f"rank {rank} did not end" for rank, end in enumerate(ended) if end.code == -99]
    return hung + problems(run)


def _finish(
    run: Path, name: str, size: int, of_one: dict[str, Any], found: RankKills, folder: Path
) -> list[str]:
    ended = forked_ranks(size, partial(_train, run, name), folder)
    if any(end.code for end in ended):
        return [f"cannot resume on {size}: {[(end.code, end.error) for end in ended]}"]
    found.runs += 1
    apart = difference(run, of_one)
    found.largest_difference = max(found.largest_difference, apart)
    return [f"on {size} ranks {apart:.1e} from one rank"] if apart > TOLERANCE else []


def _nan_on_one_rank(run: Path, folder: Path, rollback: bool) -> list[str]:
    """Rank 1 alone reads NaN in D step 14, of G step 7: all stop, or all go back to the checkpoint of step 6."""
    shutil.rmtree(run, ignore_errors=True)

    def of_rank(ranks: Ranks) -> None:
        settings = BATCH | {"on_nan": "rollback" if rollback else "stop"}
        trainer = trainer_of(config(PRESETS[1]).replace(settings), images(), run)
        pending = [14] if ranks.rank == 1 else []

        def broken(step: int, reals: Tensor) -> Tensor:
            if step in pending:
                pending.remove(step)
                return torch.full_like(reals, math.nan)
            return reals

        change_reals(trainer, broken)
        trainer.train()

    ended = forked_ranks(2, of_rank, folder)
    if rollback:
        expected = all(not end.code for end in ended) and "back to step 6, retry 1 of 3" in read_log(run)
    else:
        expected = all(end.error.startswith("NonFiniteError") for end in ended)
    what = "roll back" if rollback else "stop"
    return problems(run) + (
        []
        if expected
        else [f"NaN on one rank did not {what} both: {[(end.code, end.error) for end in ended]}"]
    )
