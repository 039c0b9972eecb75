"""A small run of Fig. 3 that several tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastdat.experiments.points.fig3 import Fig3Config, run

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
