"""What the campaigns count and keep: no kill that killed nothing, nothing twice, and nothing but whole measurements."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environment import REPOSITORY
from tests.faults import kills, rank_kills
from tests.faults.injector import Action, Injector
from tests.faults.kills import Killer, Kills
from tests.faults.page import rows
from tests.faults.toy_runs import PRESETS, Ended

KILLED = Ended(-signal.SIGKILL)
DONE = Ended(0)
BROKEN = Ended(3, "RunFolderError: no undamaged checkpoint")


class NoInjector(Injector):
    """Of runs that are not run."""

    def __init__(self) -> None:
        pass

    def arm(self, folder: Path, number: int, action: Action, error: int = 0) -> None:
        pass

    def disarm(self) -> None:
        pass

    @property
    def calls(self) -> int:
        return 9


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kills]:
    """What is counted for a run whose processes do as told: how each ends, after which change of its checkpoints."""
    monkeypatch.setattr(kills, "train", lambda *_, **__: None)
    monkeypatch.setattr(kills, "results", lambda run: {})
    monkeypatch.setattr(kills, "problems", lambda run: [])
    monkeypatch.setattr(kills, "difference", lambda run, straight: "")

    def of(*processes: tuple[Ended, Callable[[Path], None]]) -> Kills:
        left = [(DONE, _nothing), *processes]

        def forked(function: Any, note: Path, kill_after: float | None = None) -> Ended:
            ended, change = left.pop(0)
            folder = tmp_path / "killed" / "checkpoints"
            folder.mkdir(parents=True, exist_ok=True)
            change(folder)
            return ended

        monkeypatch.setattr(kills, "forked", forked)
        found = Kills()
        Killer(tmp_path, PRESETS[0], NoInjector()).run(found, iter(range(1, len(processes))))
        assert not left
        return found

    return of


def _nothing(folder: Path) -> None:
    pass


def _half_written(folder: Path) -> None:
    (folder / ".latest.pt.tmp").unlink(missing_ok=True)
    (folder / ".latest.pt.tmp").write_bytes(b"half")


def _without_its_second_name(folder: Path) -> None:
    _half_written(folder)
    os.replace(folder / ".latest.pt.tmp", folder / "latest.pt")


def test_what_an_earlier_kill_left_is_counted_once(killed: Callable[..., Kills]) -> None:
    """A process that is killed before it writes anything leaves the half of the one before as it is."""
    for change in (_half_written, _without_its_second_name):
        found = killed((KILLED, change), (KILLED, _nothing), (DONE, _nothing))
        assert (found.rounds, found.inside_a_checkpoint_write) == (2, 1)
        found = killed((KILLED, change), (KILLED, change), (DONE, _nothing))
        assert (found.rounds, found.inside_a_checkpoint_write) == (2, 2)


def test_a_run_that_cannot_resume_is_a_loss(killed: Callable[..., Kills]) -> None:
    """Also where the process that finishes the run can: the campaign goes on, and the loss is in its JSON."""
    found = killed((KILLED, _nothing), (BROKEN, _nothing), (DONE, _nothing))
    assert found.losses == [f"{PRESETS[0]}, to be killed at 2: {BROKEN.error}"]
    assert (found.runs, found.rounds) == (1, 1)


@pytest.mark.parametrize(
    ("ends", "counted", "processes"),
    [
        (lambda of_killed: KILLED if of_killed else BROKEN, 3, 3),  # the other ranks lose a peer
        (lambda of_killed: DONE, 0, 1),
        (lambda of_killed: KILLED if of_killed == 1 else DONE, 0, 1),  # some of the ranks had ended before
    ],
)
def test_only_kills_of_living_ranks_are_counted(
    ends: Callable[[int], Ended],
    counted: int,
    processes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that was done before its kill is no round, and is not killed again."""
    started: list[int] = []

    def forked_ranks(size: int, of_rank: Any, folder: Path, kill: tuple[set[int], float]) -> list[Ended]:
        started.append(size)
        order = {rank: place for place, rank in enumerate(sorted(kill[0]), 1)}
        return [ends(order.get(rank, 0)) for rank in range(size)]

    monkeypatch.setattr(rank_kills, "forked_ranks", forked_ranks)
    monkeypatch.setattr(rank_kills, "train", lambda *_, **__: None)
    monkeypatch.setattr(rank_kills, "results", lambda run: {})
    monkeypatch.setattr(rank_kills, "problems", lambda run, every=3: [])
    monkeypatch.setattr(rank_kills, "_finish", lambda *_: [])
    monkeypatch.setattr(rank_kills, "_nan_on_one_rank", lambda *_, **__: [])
    draws = iter([3])
    monkeypatch.setattr(rank_kills.random.Random, "randint", lambda *_: next(draws))
    monkeypatch.setattr(rank_kills.random.Random, "choice", lambda self, of: of[-1])
    found = rank_kills.campaign(tmp_path, 1, float("inf"))
    assert len(started) == processes
    assert found.rounds == ({"4 of 4": counted} if counted else {})


@pytest.mark.parametrize("target", ["test-faults", "fuzz"])
def test_make_leaves_the_committed_results_alone(target: str) -> None:
    """They are overwritten only if that is asked for."""
    for given, folder in (([], "build"), (["RESULTS_DIR=bench/results"], "bench/results")):
        asked = subprocess.run(
            ["make", "--dry-run", target, *given], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        (command,) = (line for line in asked.stdout.splitlines() if "--json" in line)
        name = target.removeprefix("test-")
        assert f"--json {folder}/{name}.json" in command
        assert f"mkdir -p {folder}" in asked.stdout


def test_a_part_of_a_measurement_does_not_replace_the_whole(tmp_path: Path) -> None:
    """docs/faults.md is compared with all campaigns of bench/results/faults.json."""
    whole = tmp_path / "faults.json"
    before = (REPOSITORY / "bench" / "results" / "faults.json").read_bytes()
    whole.write_bytes(before)
    refused = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--only", "damage", "--damages", "0", "--json", str(whole)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert whole.read_bytes() == before
    assert refused.returncode == 2
    assert "holds all campaigns" in refused.stderr


def test_rows_of_a_short_measurement() -> None:
    """Few rounds need not have met every kind of damage."""
    counts = {"runs": 1, "rounds": 1, "inside_a_checkpoint_write": 0, "losses": []}
    found = {
        "kills": counts,
        "full disk": {"faults": {"write": 2}, "stopped": 2, "survived": 0, "losses": []},
        "damage": {"rounds": {"cut": 1}, "used": {"of step 6 instead of 9": 1}, "losses": ["one"]},
        "rank kills": {"rounds": {}, "runs": 1, "nan_rounds": 0, "losses": []},
        "torchrun": {"scenarios": [], "losses": []},
    }
    assert "| damaged checkpoints | 1 (cut: 1), in 0 of them two in one run | 1 |" in rows(found)
