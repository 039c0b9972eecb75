"""Fixtures of runs that are scored, for tests of training and of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.data import ImageSet
from fastdat.metrics import extractors, register_extractor
from tests.training.runs import means, scored, trainer_of


@pytest.fixture(autouse=True)
def cheap_extractor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Register the extractor "means" for one test, and keep its features in a cache of the test."""
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("means", means)
    monkeypatch.setenv("FASTDAT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> Path:
    """The folder of a finished run that was scored at steps 2 and 4."""
    trainer_of(scored(cifar10_root), few_images, tmp_path / "run").train()
    return tmp_path / "run"
