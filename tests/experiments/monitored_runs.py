"""Runs that measure D while they train, for tests of the experiments on them: made up, or of four steps on noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastdat.data import ImageSet
from fastdat.experiments import outcome_files
from fastdat.experiments.images import image_study
from fastdat.experiments.images.image_study import Arm, Trained
from fastdat.experiments.outcome import Outcome
from fastdat.training import preset
from tests.experiments.image_runs import TINY

SHORT = {key: value for key, value in TINY.items() if not key.startswith("eval.")} | {"eval.every": None}


def ended(arm: str, lines: Sequence[dict[str, Any]], seed: int = 0, *, diverged: bool = False) -> Trained:
    """A run with these lines of stats.jsonl, of which no file exists."""
    config = preset("dcgan-cifar10").replace({"steps": 400})
    return Trained(arm, seed, Path("nowhere") / arm, config, tuple(lines), (), diverged)


def given(monkeypatch: pytest.MonkeyPatch, module: Any, runs: dict[str, list[Trained]]) -> None:
    """Let the experiment find these runs instead of training."""

    def found(arms: Sequence[Arm], *_: Any, **__: Any) -> dict[str, tuple[Trained, ...]]:
        return {arm.name: tuple(runs[arm.name]) for arm in arms}

    monkeypatch.setattr(module, "train_all", found)


def written(outcome: Outcome, folder: Path) -> str:
    """The page, after all files were written."""
    outcome_files.write(outcome, folder)
    record = json.loads((folder / f"{outcome.name}.json").read_text())
    assert str(folder) not in json.dumps(record), "no paths"
    return outcome_files.markdown(record)


def shorten(monkeypatch: pytest.MonkeyPatch, *modules: Any) -> None:
    """Runs of four steps of tiny nets."""

    def thin(config: Any, steps: int, **_: Any) -> Any:
        return config.replace(SHORT | {"steps": 4})

    for module in modules:
        monkeypatch.setattr(module, "thin", thin)


def on_noise(monkeypatch: pytest.MonkeyPatch, module: Any, data: ImageSet) -> None:
    """Train on ``data`` instead of images from a folder."""
    monkeypatch.setattr(module, "train_all", lambda *a, **k: image_study.train_all(*a, images=data, **k))
