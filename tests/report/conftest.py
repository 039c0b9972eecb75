"""Run folders that several tests of the report use."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.runs import make_run, scored

_LITE: dict[str, Any] = {"extractor": "efficientnet-lite0", "fake_count": 1000, "real_count": 2000}


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run ``dat`` with DAT and the paper's protocol, and a shorter run ``plain`` without either."""
    first = make_run(
        tmp_path / "dat",
        metrics=(
            scored(20, {"fid": 30.0, "is": 7.5}),
            scored(40, {"fid": 18.05, "is": 7.9}),
            scored(40, {"fid": 22.5}, split="test", real_count=10_000),
        ),
    )
    second = make_run(
        tmp_path / "plain", "sngan-cifar10", steps=10, grids=3, metrics=(scored(10, {"kid": 1.25}, **_LITE),)
    )
    return first, second
