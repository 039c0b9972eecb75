"""The cost of a run: a step of the fastest lap, without compilation, measured once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastdat.experiments.evidence import run_cost
from fastdat.experiments.evidence.run_cost import COST, Cost
from fastdat.training import TrainConfig
from fastdat.training.build import build_trainer
from fastdat.util.errors import RunFolderError
from tests.experiments.image_runs import OPTIONS, images, tiny_arm

ARMS = [tiny_arm("no attack"), tiny_arm("DAT", "dcgan-dat-cifar10")]


class Clock:
    """Lets a training end its laps at given times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.configs: list[TrainConfig] = []
        monkeypatch.setattr(run_cost.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(run_cost, "build_trainer", self.build)

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
    assert found == {"no attack": Cost(0.15, 0.45), "DAT": Cost(0.3, 0.9)}
    assert [config.compile for config in clock.configs] == [True, False, True, False]
    for config in clock.configs:
        assert (config.steps, config.log_every, config.eval.every) == (250, 50, None)


def test_what_was_measured_is_kept_with_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch)
    first = run_cost.measured(ARMS[:1], OPTIONS, tmp_path, images=images())
    both = run_cost.measured(ARMS, OPTIONS, tmp_path, images=images())
    assert len(clock.configs) == 4, "no arm twice"
    assert both["no attack"] == first["no attack"]
    assert run_cost.measured(ARMS[1:], OPTIONS, tmp_path, images=images()) == {"DAT": both["DAT"]}
    assert "torch" in json.loads((tmp_path / COST).read_text())["machine"]


def test_another_machine_measures_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch)
    here = run_cost.machine_info()
    run_cost.measured(ARMS, OPTIONS, tmp_path, images=images())
    monkeypatch.setattr(run_cost, "machine_info", lambda: here | {"threads": here["threads"] + 1})
    run_cost.measured(ARMS[:1], OPTIONS, tmp_path, images=images())
    assert len(clock.configs) == 6
    assert run_cost.where() == f"{here['device']}, {here['threads'] + 1} threads"
    kept = json.loads((tmp_path / COST).read_text())
    assert list(kept["seconds a step"]) == ["no attack"], "seconds of two machines are never in one file"
    assert kept["machine"]["threads"] == here["threads"] + 1


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
    assert 1e-4 < found["DAT"].compiled < 10
    assert 1e-4 < found["DAT"].eager < 10
