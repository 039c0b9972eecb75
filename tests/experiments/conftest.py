"""What several tests share: a small run of Fig. 3, a short length for other experiments on points, an extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.experiments.points import quick_study, table3
from fastdat.experiments.points.fig3 import Fig3Config, run
from fastdat.metrics import Extractor, extractors, register_extractor

SMALL: dict[str, Any] = {"iterations": 6, "seeds": 2, "compile": False, "device": "cpu"}


@pytest.fixture(scope="session")
def small_config() -> Fig3Config:
    """Six iterations of two seeds, which take seconds."""
    return Fig3Config(**SMALL)


@pytest.fixture(scope="session")
def small_run(small_config: Fig3Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that one run of ``small_config`` has written."""
    outdir = tmp_path_factory.mktemp("fig3") / "new" / "folder"
    run(small_config, outdir)
    return outdir


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterations in place of 2,500, and one measurement."""
    monkeypatch.setattr(quick_study, "_PARTS", 1)
    for module in (quick_study, table3):
        monkeypatch.setattr(module, "ITERATIONS", 2)


class Means(torch.nn.Module):
    """The mean of each channel of images (N, 3, H, W) in [0, 255]."""

    def forward(self, batch: Tensor) -> Tensor:
        return batch.float().mean((2, 3)) / 255


@pytest.fixture
def means_extractor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The extractor "means" of ``image_runs.TINY``, and a cache of reals for one test."""
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("means", lambda weights: Extractor("means", Means(), "none"))
    monkeypatch.setenv("FASTDAT_CACHE", str(tmp_path / "cache"))
