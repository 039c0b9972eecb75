"""Files that grow: they keep what they should, and NumPy reads them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from fastdat.data import npy
from fastdat.data.packing.npy_writer import NpyWriter


def test_a_reopened_file_keeps_what_it_should(tmp_path: Path) -> None:
    path, items = tmp_path / "a.npy", np.arange(12, dtype=np.int64).reshape(6, 2)
    with NpyWriter(path, npy.LABELS, (2,), 0) as writer:
        writer.append(items)
    with NpyWriter(path, npy.LABELS, (2,), 4) as writer:
        writer.append(items[:1])
        writer.finish()
        assert writer.count == 5
    by_numpy = BytesIO()
    np.save(by_numpy, np.concatenate([items[:4], items[:1]]))
    assert path.read_bytes() == by_numpy.getvalue()


@pytest.mark.parametrize(
    "shape", [(1,), (60,), (1, 1, 28, 28), (3_033_042, 3, 64, 64), (10**14, 3, 1024, 1024)]
)
@pytest.mark.parametrize("descr", [npy.IMAGES, npy.LABELS])
def test_headers_are_those_that_numpy_reads(descr: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    header = npy.header(descr, shape)
    assert len(header) == npy.HEADER_BYTES
    (tmp_path / "a.npy").write_bytes(header)
    with (tmp_path / "a.npy").open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(descr))
        assert file.tell() == npy.HEADER_BYTES
