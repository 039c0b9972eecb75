"""A store of the size of LSUN-Bedroom is opened and sampled in little memory, whatever its size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import REPOSITORY

FEW, MANY = 30_000, 3_000_000
BYTES_AN_IMAGE = 8 + 2 * (
    4 + 1
)  # its label; its place in the order, and whether it is mirrored, in two epochs
MAPPED_A_ROW = (
    2 << 16
)  # the system maps 64 KiB around each page that is touched, and a row may lie in two such windows

RETURNED = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""What is freed goes back to the system: how much malloc keeps depends on which thread was faster."""


def memory(folder: Path, count: int, *options: str) -> dict[str, int]:
    """What a process needs that opens and samples ``count`` images."""
    command = [
        sys.executable,
        "-m",
        "tests.data.large_store",
        str(folder),
        "--count",
        str(count),
        "--batches",
        "4",
    ]
    result = subprocess.run(
        [*command, *options],
        cwd=REPOSITORY,
        env=os.environ | RETURNED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, int] = json.loads(result.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--check",)], ids=["", "checked"])
def test_three_million_images(options: tuple[str, ...], tmp_path: Path) -> None:
    few, many = (memory(tmp_path / str(count), count, *options) for count in (FEW, MANY))
    size = sum(path.stat().st_size for path in (tmp_path / str(MANY)).iterdir() if path.suffix == ".u8")
    assert size == MANY * 3 * 64 * 64, "37 GB"
    assert many["own"] - few["own"] < BYTES_AN_IMAGE * (MANY - FEW) + (4 << 20)
    assert many["mapped"] < MAPPED_A_ROW * many["rows"] < 0.01 * size, "no other pages are touched"
