"""The cost of a run: a step of the fastest lap, without compilation, measured once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastdat.experiments import training_origin
from fastdat.experiments.evidence import run_cost
from fastdat.experiments.evidence.run_cost import COST, Cost, Costs
from fastdat.training import TrainConfig
from fastdat.training.build import build_trainer
from fastdat.util.errors import RunFolderError
from fastdat.util.provenance import processor_name
from tests.experiments.image_runs import OPTIONS, images, tiny_arm

COMMIT = "0123456789" * 4
ARMS = [tiny_arm("no attack"), tiny_arm("DAT", "dcgan-dat-cifar10")]


class Clock:
    """Lets a training end its laps at given times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.configs: list[TrainConfig] = []
        monkeypatch.setattr(run_cost.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(run_cost, "build_trainer", self.build)
        monkeypatch.setattr(training_origin, "_commit", lambda: COMMIT)

    def build(self, config: TrainConfig, *_: Any, callbacks: Sequence[Callable[[Any], None]]) -> Any:
        self.configs.append(config)
        clock = self

        class Trainer:
            def train(self) -> None:
                # A slow first lap, which compiles, and then four of different lengths.
                slow = 2.0 if config.dat.attacks else 1.0
                for lap in (500.0, 9.0, 7.5, 8.0, 11.0):
                    clock.now += lap * slow * (1 if config.compile else 3)
                    callbacks[0](None)

        return Trainer()


def test_a_step_of_the_fastest_lap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch)
    found = run_cost.measured(ARMS, OPTIONS, tmp_path, images=images())
    assert found.of == {"no attack": Cost(0.15, 0.45), "DAT": Cost(0.3, 0.9)}
    assert [config.compile for config in clock.configs] == [True, False, True, False]
    for config in clock.configs:
        assert (config.steps, config.log_every, config.eval.every) == (250, 50, None)


def test_what_was_measured_is_kept_with_machine_and_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)
    first = run_cost.measured(ARMS[:1], OPTIONS, tmp_path / "finished", images=images())
    both = run_cost.measured(ARMS, OPTIONS, tmp_path / "finished", images=images())
    assert len(clock.configs) == 4, "no arm twice"
    assert both.of["no attack"] == first.of["no attack"]
    assert run_cost.measured(ARMS[1:], OPTIONS, tmp_path / "finished").of == {"DAT": both.of["DAT"]}
    kept = json.loads((tmp_path / "finished" / COST).read_text())
    assert kept["commit"] == COMMIT
    assert kept["machine"] == run_cost.machine_info()


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    here = run_cost.machine_info()
    monkeypatch.setattr(run_cost, "machine_info", lambda: {**here, "threads": here["threads"] + 1})


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_origin, "_commit", lambda: "fedcba9876543210")


@pytest.mark.parametrize("moved", [elsewhere, later])
def test_all_that_was_measured_is_taken_from_another_machine(
    moved: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)
    there = run_cost.measured(ARMS, OPTIONS, tmp_path, images=images())
    moved(monkeypatch)
    assert run_cost.measured(ARMS, OPTIONS, tmp_path) == there
    assert len(clock.configs) == 4


@pytest.mark.parametrize("moved", [elsewhere, later])
def test_a_part_of_another_machine_is_measured_again(
    moved: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Seconds of two machines, or of two commits, never meet in one table."""
    clock = Clock(monkeypatch)
    there = run_cost.measured(ARMS[:1], OPTIONS, tmp_path, images=images())
    moved(monkeypatch)
    here = run_cost.measured(ARMS, OPTIONS, tmp_path, images=images())
    assert len(clock.configs) == 6
    assert list(here.of) == ["no attack", "DAT"]
    assert (here.machine, here.commit) != (there.machine, there.commit)
    assert run_cost.read(tmp_path) == here


def test_machine_and_commit_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = {"device": "a processor, 3 cores", "threads": 1}
    assert Costs({}, machine, COMMIT).where == "a processor, 3 cores, 1 thread, commit 0123456789"
    assert "3 threads, commit 0123456789 with changes" in (
        Costs({}, {**machine, "threads": 3}, f"{COMMIT} with changes").where
    )
    Clock(monkeypatch)
    monkeypatch.setattr(training_origin, "device_name", lambda: "a GPU")
    monkeypatch.setattr(run_cost, "machine_info", lambda: {**machine, "device": "a GPU"})
    found = run_cost.measured(ARMS, OPTIONS, tmp_path, images=images())
    assert found.machine["device"] == processor_name(), "it trained on the CPU of this machine"


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"seconds a step": {"DAT": {"compiled": "x"}}}'])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: str) -> None:
    (tmp_path / COST).write_text(damage)
    with pytest.raises(RunFolderError, match=r"cost.json is damaged .* Remove it to measure again"):
        run_cost.read(tmp_path)


def test_a_real_training_has_laps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build_eager(config: TrainConfig, *args: Any, **kwargs: Any) -> Any:
        return build_trainer(config.replace({"compile": False}), *args, **kwargs)

    monkeypatch.setattr(run_cost, "build_trainer", build_eager)
    monkeypatch.setattr(run_cost, "LAP", 2)
    monkeypatch.setattr(run_cost, "LAPS", 2)
    found = run_cost.measured(ARMS[1:], OPTIONS, tmp_path, images=images())
    assert 1e-4 < found.of["DAT"].compiled < 10
    assert 1e-4 < found.of["DAT"].eager < 10
