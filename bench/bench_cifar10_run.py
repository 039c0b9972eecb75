"""The rate of a real training: SNGAN with DAT on CIFAR-10 at the settings of Table I, for a minute on a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.bench_training import images as images
from bench.cifar10_run import PRESET, SETTINGS, said, train_piece, with_piece
from fastdat.data import ImageSet
from fastdat.training import preset

SECONDS = float(os.environ.get("FASTDAT_TRAIN_SECONDS", 90))
GOAL_MINUTES = 12.0
"""For 100,000 steps on an H200."""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a rate at full width is that of a GPU")
def bench_train(benchmark: BenchmarkFixture, images: ImageSet, tmp_path: Path) -> None:
    """One piece of the run, from the first compilation on, and the time of 100,000 steps at its settled rate."""
    config = preset(PRESET).replace(SETTINGS)
    piece = benchmark.pedantic(train_piece, (config, images, tmp_path / "run", SECONDS), rounds=1)
    found = with_piece({"pieces": []}, piece, config)
    print(said(found))
    minutes = found["minutes_for_all_steps"]
    benchmark.extra_info.update(
        piece, images=images.name, minutes_for_all_steps=minutes, goal_minutes=GOAL_MINUTES
    )
    assert piece["it_per_s"] is not None
    assert piece["graphs"] == 1, "iterations were not captured: see the log above"
