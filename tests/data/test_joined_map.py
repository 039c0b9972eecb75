"""Several files as one array: their bytes in order, nothing read, and given back when it is no longer used."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastdat.data.joined_map import joined
from fastdat.data.store import read_only_tensor

PAGE = mmap.PAGESIZE


def files_of(folder: Path, sizes: Sequence[int]) -> tuple[list[Path], NDArray[np.uint8]]:
    """Files of random bytes, and all of the bytes."""
    content = np.random.default_rng(0).integers(0, 256, sum(sizes), np.uint8)
    paths, start = [], 0
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number}.u8")
        paths[-1].write_bytes(content[start : start + size].tobytes())
        start += size
    return paths, content


def map_files(paths: Sequence[Path], sizes: Sequence[int]) -> NDArray[np.uint8]:
    opened = [path.open("rb") for path in paths]
    try:
        return joined([(file.fileno(), size) for file, size in zip(opened, sizes, strict=True)])
    finally:
        for file in opened:
            file.close()


def maps_of(folder: Path) -> list[str]:
    """The maps of this process of files in ``folder``."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]


@pytest.mark.parametrize("sizes", [[7], [3 * PAGE, PAGE, 2 * PAGE + 5], [PAGE, PAGE]], ids=str)
def test_the_bytes_of_all_files_in_order(sizes: list[int], tmp_path: Path) -> None:
    paths, content = files_of(tmp_path, sizes)
    found = map_files(paths, sizes)
    assert found.shape == content.shape
    assert (found == content).all()


def test_only_the_bytes_asked_for(tmp_path: Path) -> None:
    paths, content = files_of(tmp_path, [2 * PAGE, 2 * PAGE])
    found = map_files(paths, [PAGE, 10])
    assert (found == np.concatenate([content[:PAGE], content[2 * PAGE : 2 * PAGE + 10]])).all()


def test_a_tensor_keeps_the_maps_and_the_last_user_gives_them_back(tmp_path: Path) -> None:
    sizes = [PAGE, 2 * PAGE, 3]
    paths, content = files_of(tmp_path, sizes)
    rows = read_only_tensor(map_files(paths, sizes)[: 3 * PAGE].reshape(6, -1))[3:]
    gc.collect()
    assert [line.split()[1] for line in maps_of(tmp_path)] == ["r--s"] * 3, "readable, not writable"
    assert torch.equal(rows, torch.from_numpy(content[: 3 * PAGE].reshape(6, -1)[3:]))
    del rows
    gc.collect()
    assert maps_of(tmp_path) == []


def test_it_is_for_reading_only(tmp_path: Path) -> None:
    paths, _ = files_of(tmp_path, [PAGE])
    with pytest.raises(ValueError, match="read-only"):
        map_files(paths, [PAGE])[0] = 1


def test_errors(tmp_path: Path) -> None:
    paths, _ = files_of(tmp_path, [PAGE, 100])
    with pytest.raises(ValueError, match="file 1 has fewer than 101 bytes"):
        map_files(paths, [PAGE, 101])
    with pytest.raises(ValueError, match=r"file 0: 100 bytes are no multiple of [\d,]+, a page"):
        map_files(paths, [100, 100])
    written = os.open(paths[0], os.O_WRONLY)
    with pytest.raises(OSError, match="Permission denied"):
        joined([(written, PAGE)])
    os.close(written)
    assert maps_of(tmp_path) == []
