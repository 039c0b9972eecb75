"""Runs of a few steps with tiny nets, and what the tests of training look at in their folders."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.metrics import Evaluator, Extractor
from fastdat.training import TrainConfig, Trainer, build_trainer, checkpoint, preset
from fastdat.training.device_settings import settled
from fastdat.training.display import Lines

#: Settings of a run that takes a second.
TINY: dict[str, Any] = {
    "ngf": 4,
    "ndf": 4,
    "nz": 8,
    "batch_size": 4,
    "n_dis": 2,
    "steps": 4,
    "log_every": 2,
    "sample_every": 3,
    "samples": 4,
    "compile": False,
    "device": "cpu",
    "logger": "none",
    "eval.every": None,
}
#: With everything that a resumed run has to restore: checkpoints, the average, flips, half-full meters.
RESUMABLE = TINY | {"steps": 8, "log_every": 3, "checkpoints.every": 2, "ema": 0.9, "flip": True}
#: Scored at steps 2 and 4 by :class:`Means`, against both splits.
SCORED = TINY | {
    "n_dis": 1,
    "sample_every": 100,
    "checkpoints.every": 100,
    "logger": "tensorboard",
    "eval.every": 2,
    "eval.extractor": "means",
    "eval.metrics": ["kid"],
    "eval.fakes": 20,
    "eval.reals": 30,
}
#: Those of TINY that may be set for your own nets.
OWN_NETS = {key: value for key, value in TINY.items() if key not in ("ngf", "ndf")}


def tiny(name: str = "sngan-dat-cifar10", **changes: Any) -> TrainConfig:
    return preset(name).replace(TINY | changes)


def resumable(name: str = "sngan-dat-cifar10", **changes: Any) -> TrainConfig:
    return preset(name).replace(RESUMABLE | changes)


def scored(data: Path, name: str = "sngan-dat-cifar10", **changes: Any) -> TrainConfig:
    return preset(name).replace(SCORED | {"data": str(data)} | changes)


def on_cpu(config: TrainConfig) -> TrainConfig:
    """What a run on a CPU records of ``config``: nothing is left to the device."""
    return settled(config, torch.device("cpu"))[0]


def trainer_of(
    config: TrainConfig,
    data: ImageSet | None,
    outdir: Path,
    evaluator: Evaluator | None = None,
    **resuming: Any,
) -> Trainer:
    return build_trainer(config, data, outdir, evaluator=evaluator, display=silent(), **resuming)


def silent() -> Lines:
    return Lines(io.StringIO())


class Means(torch.nn.Module):
    """A feature extractor that needs no weights: the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3)) / 255


def means(weights: str | None) -> Extractor:
    return Extractor("means", Means(), "none")


class EndError(Exception):
    """Stands for a sudden end of the process."""


def change_reals(trainer: Trainer, change: Callable[[int, Tensor], Tensor]) -> None:
    """Pass the reals of every D step through ``change(step, reals)``."""
    batches: Any = trainer.iteration.batches
    batch = batches.batch
    batches.batch = lambda step: change(step, batch(step))


def end_at(trainer: Trainer, d_step: int, error: type[BaseException] = EndError) -> None:
    """Raise ``error`` when D step ``d_step`` asks for its reals."""

    def ending(step: int, reals: Tensor) -> Tensor:
        if step == d_step and trainer.done > 0:
            raise error
        return reals

    change_reals(trainer, ending)


def train_until(trainer: Trainer, d_step: int, error: type[BaseException] = EndError) -> None:
    """Train until D step ``d_step``, which raises ``error``."""
    end_at(trainer, d_step, error)
    with pytest.raises(error):
        trainer.train()


def read_stats(run: Path) -> list[dict[str, float]]:
    return _lines(run / "stats.jsonl")


def read_scores(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    return [
        {key: value for key, value in record.items() if key != "seconds"}
        for record in _lines(run / "metrics.jsonl")
    ]


def read_log(run: Path) -> str:
    return (run / "log.txt").read_text()


def without_times(stats: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "it_per_s")} for line in stats
    ]


def latest(run: Path) -> dict[str, Any]:
    return checkpoint.load(run / "checkpoints" / "latest.pt")


def results(run: Path) -> dict[str, Any]:
    """Everything in a run folder that does not depend on the clock."""
    state = latest(run)
    samples = {path.name: path.read_bytes() for path in (run / "samples").iterdir()}
    keys = ("step", "netG", "netD", "ema", "optG", "optD", "regularizers", "meters", "attempt")
    kept = {key: state[key] for key in keys}
    return {"stats": without_times(read_stats(run)), "samples": samples, "state": kept}


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, tensors included."""
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
