"""MNIST (LeCun et al. 1998) as idx files, plain or compressed by gzip: grey images of 28 x 28 pixels."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastdat.data.download import Files
from fastdat.data.publisher import download_advice, missing
from fastdat.data.source import ArraySource
from fastdat.util.errors import DataError

#: Bytes that a file has when unpacked, at most; the largest of the publisher has 47 million.
_MOST_BYTES = 1 << 30
_PREFIX = {"train": "train", "test": "t10k"}
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
FILES = Files(
    folder="MNIST/raw",
    urls={
        f"{_URL}/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        f"{_URL}/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        f"{_URL}/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        f"{_URL}/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)


def open_mnist(root: Path, split: str) -> ArraySource:
    """One split: 60,000 or 10,000 images (N, 1, 28, 28).

    Raises:
        DataError: files are missing or damaged.
    """
    prefix = _PREFIX[split]
    images = _read(_find(root, f"{prefix}-images-idx3-ubyte"), dims=3)
    labels = _read(_find(root, f"{prefix}-labels-idx1-ubyte"), dims=1)
    if len(images) != len(labels) or images.shape[1:] != (28, 28) or not len(images):
        raise DataError(
            f"{root}: {len(labels)} labels and images of shape {images.shape}; expected (N, 28, 28), N > 0"
        )
    if labels.max(initial=0) > 9:
        raise DataError(f"{root}: labels must be 0 to 9, found {labels.max()}")
    return ArraySource(images[:, None], labels.astype(np.int64), tuple("0123456789"))


def _find(root: Path, name: str) -> Path:
    for folder in (root, root / "MNIST" / "raw", root / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    advice = download_advice("mnist", "MNIST (11 MiB)", root, FILES.folder)
    raise missing(root, f"{name}, with or without .gz", advice)


def _read(path: Path, dims: int) -> NDArray[np.uint8]:
    """The array of an idx file. Its header is a magic number (uint8, number of dimensions) and the sizes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)  # a gzip file may unpack to a thousand times its size
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(raw) > _MOST_BYTES:
        raise DataError(f"{path} has more than {_MOST_BYTES:,} bytes when unpacked: it is no file of MNIST")
    header = 4 * (1 + dims)
    if len(raw) < header or raw[:4] != bytes((0, 0, 8, dims)):
        raise DataError(
            f"{path} is no idx file of {dims} dimension(s): it begins with {raw[:4].hex() or 'nothing'}"
        )
    shape = struct.unpack(f">{dims}I", raw[4:header])
    if len(raw) - header != np.prod(shape, dtype=object):
        raise DataError(
            f"{path} has {len(raw) - header:,} bytes of data; its header says {shape}. It is truncated."
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
